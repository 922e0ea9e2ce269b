"""A run as one file: whole or not at all, every file as it was, and nothing that is no file of a run."""

import fcntl
import json
import os
import tarfile
from pathlib import Path

import pytest

from bitsafe.config import Config
from bitsafe.errors import UserError
from bitsafe.files import read_json, write_text
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.sharing.archive import archive, unpack
from bitsafe.sharing.records import moved, record_file, records, restore

CELL = "toy/rtn/4bit/none/quantized"


@pytest.fixture
def run(tmp_path) -> Run:
    """A folder as a run leaves it, with what a killed one leaves beside."""
    run = Run(Config(run="r", results=str(tmp_path / "results"), data_dir="/mnt/data"))
    run.save()
    files = {"report.html": "page", "scores.csv": "a,b\n", f"{CELL}/artefacts.json": "{}", ".lock": "process 1 on x"}
    files |= {f"{CELL}/rep0/artefact/model.safetensors": "weights", f"{CELL}/rep0/artefact/config.json": "{}"}
    files |= {f"{CELL}/rep0/.artefact.dead.part/model.safetensors": "half", f"{CELL}/rep0/answers.store.jsonl": "{}\n"}
    files |= {f"{CELL}/rep0/training.0.1.safetensors": "state", ".judge.llm.lock": ""}
    files |= {"logs/score.log": f"{run.folder.absolute()}/x in {ROOT}/workflow\n"}
    files |= {f"{CELL}/rep0/status.json": json.dumps({"reason": f"{run.folder}/toy: gone"})}
    for name, text in files.items():
        write_text(run.folder / name, text)
    os.link(run.folder / "report.html", run.folder / "linked.html")
    return run


@pytest.fixture
def packed(run, tmp_path) -> Path:
    archive(run, tmp_path / "r.tar.gz")
    return tmp_path / "r.tar.gz"


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_what_goes_along_and_what_does_not(run, packed, tmp_path):
    unpack(packed, tmp_path / "new")
    left = {".lock", ".judge.llm.lock", f"{CELL}/rep0/training.0.1.safetensors"}
    left |= {f"{CELL}/rep0/.artefact.dead.part/model.safetensors"}
    assert files(run.folder) - files(tmp_path / "new/r") == left
    assert files(tmp_path / "new/r") <= files(run.folder)
    for name in ("report.html", "linked.html", f"{CELL}/rep0/artefact/model.safetensors"):
        assert (tmp_path / "new/r" / name).read_bytes() == (run.folder / name).read_bytes()
        assert abs((tmp_path / "new/r" / name).stat().st_mtime - (run.folder / name).stat().st_mtime) < 1e-5


def test_paths_of_the_machine_stay_behind(packed, tmp_path):
    unpack(packed, tmp_path / "new")
    config = read_json(tmp_path / "new/r/config.json")
    assert (config["results"], config["data_dir"]) == ("results", None)
    assert (tmp_path / "new/r/logs/score.log").read_text() == "results/r/x in ./workflow\n"
    assert read_json(tmp_path / "new/r" / CELL / "rep0/status.json") == {"reason": "results/r/toy: gone"}
    assert Run.load(tmp_path / "new/r").folder == tmp_path / "new/r"


def test_without_weights(run, tmp_path):
    archive(run, tmp_path / "small.tar", weights=False)
    unpack(tmp_path / "small.tar", tmp_path / "new")
    assert not (tmp_path / "new/r" / CELL / "rep0/artefact").exists()
    assert f"{CELL}/rep0/answers.store.jsonl" in files(tmp_path / "new/r")


def test_records_move_with_the_run(tmp_path):
    """Paths of the run and of the models beside it become those of the new place; like ones of other runs do not."""
    record = {"input": ["a/r/x.json", "a/models/m/source.json", "a/rest/x"], "params": ["'a/r'", "'ba/r'", "'a/r.2'"]}
    record |= {"shellcmd": "python -m bitsafe x a/r y 2>&1 | tee a/r/logs/x", "software_stack_hash": "0", "code": "c"}
    record |= {"input_checksums": {"a/r/x.json": "sha"}}
    write_text(record_file("a/r/y.json", tmp_path), json.dumps(record))
    long = "deep/" * 60 + "y.json"
    write_text(record_file(f"a/r/{long}", tmp_path), json.dumps({"rule": "long"}))
    found = dict(records("a/r", ["y.json", "z.json", long], tmp_path))
    assert set(found) == {"y.json", long}
    restore(found, Path("a/r"), Path("b/s"), tmp_path / "new")
    wanted = {"input": ["b/s/x.json", "b/models/m/source.json", "a/rest/x"], "params": ["'b/s'", "'ba/r'", "'a/r.2'"]}
    wanted |= {"shellcmd": "python -m bitsafe x b/s y 2>&1 | tee b/s/logs/x", "code": "c"}
    assert read_json(record_file("b/s/y.json", tmp_path / "new")) == wanted | {"input_checksums": {"b/s/x.json": "sha"}}
    assert read_json(record_file(f"b/s/{long}", tmp_path / "new")) == {"rule": "long"}
    assert moved(3, Path("a"), Path("b")) == 3


def test_records_lie_where_snakemake_looks(tmp_path):
    from types import SimpleNamespace

    from snakemake.persistence.file import FilePersistence

    for path in ("results/r/x.json", "results/" + "ü/deep/" * 60 + "x.json"):
        length = SimpleNamespace(_fetch_max_len=lambda _: 255)
        assert FilePersistence._record_path(length, str(tmp_path), path) == str(record_file(path, tmp_path))


def test_mistakes_are_one_line(run, packed, tmp_path):
    for name, words in (("r.tar.gz", "such a file already"), ("r.zip", "its name says")):
        with pytest.raises(UserError, match=words):
            archive(run, tmp_path / name)
    unpack(packed, tmp_path / "new")
    with pytest.raises(UserError, match="there is such a run already"):
        unpack(packed, tmp_path / "new")
    (tmp_path / "torn.tar.gz").write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    (tmp_path / "text.tar").write_text("text")
    (tmp_path / "empty.tar").write_bytes(b"")
    for name, words in (("torn.tar.gz", "not a whole"), ("text.tar", "not a whole"), ("absent.tar", "no such file")):
        with pytest.raises(UserError, match=words) as caught:
            unpack(tmp_path / name, tmp_path / "other")
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "other").glob("*")), "on any fault nothing is left"


def rewritten(old: Path, new: Path, change) -> Path:
    """A copy of an archive with its members passed through `change`; members that it turns into None are left out."""
    with tarfile.open(old) as tar, tarfile.open(new, "w") as out:
        for member in tar:
            data = tar.extractfile(member)
            if (changed := change(member)) is not None:
                out.addfile(changed, data if changed.isreg() else None)
    return new


def renamed(old: str, new: str):
    def change(member):
        member.name = member.name.replace(old, new)
        return member

    return change


def linked(member):
    if member.name.endswith("report.html"):
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed("scores.csv", "scored.csv"), r"scored\.csv is not the file that was archived \(2 differ\)"),
        (lambda member: None if member.name.endswith("report.html") else member, r"report\.html is not the file"),
        (lambda member: None if member.name.endswith("archive.json") else member, r"no archive\.json"),
        (renamed("r/report.html", "r/../../outside.html"), "not a file of a run"),
        (renamed("r/report.html", "/outside.html"), "not a file of a run"),
        (linked, "not a file of a run"),
    ],
)
def test_what_is_not_as_it_was_archived_is_laid_nowhere(packed, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        unpack(rewritten(packed, tmp_path / "broken.tar", change), tmp_path / "new")
    assert not list((tmp_path / "new").glob("*")) and not (tmp_path / "outside.html").exists()


def test_a_changed_byte_is_found(run, tmp_path):
    archive(run, tmp_path / "r.tar")
    data = (tmp_path / "r.tar").read_bytes()
    (tmp_path / "r.tar").write_bytes(data.replace(b"weights", b"weighed", 1))
    with pytest.raises(UserError, match=r"model\.safetensors is not the file that was archived"):
        unpack(tmp_path / "r.tar", tmp_path / "new")


def test_a_run_under_way_is_not_archived(run, tmp_path):
    with (run.folder / ".lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another run"):
            archive(run, tmp_path / "r.tar")
    assert not (tmp_path / "r.tar").exists()
    archive(run, tmp_path / "r.tar")
    archive(run, tmp_path / "again.tar")
