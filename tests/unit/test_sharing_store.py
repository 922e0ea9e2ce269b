"""Artefacts shared between runs: made once, never half-written, each holder's own to delete."""

import os
import shutil
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from bitsafe.cells import Cell
from bitsafe.config import Config
from bitsafe.errors import UserError
from bitsafe.files import PART, read_json, sha256_folder, write_json
from bitsafe.matrix.progress import jobs
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run
from bitsafe.quantizers import rtn
from bitsafe.sharing import store as sharing
from bitsafe.sharing.store import Store
from bitsafe.steps.make import Making, made_from, shared_key
from bitsafe.steps.patch import patch
from bitsafe.steps.quantize import quantize

RTN, MIXED = Cell("toy", "rtn", 4), Cell("toy", "rtn", 4, stage="mixed_precision_magnitude")


def run_in(folder: Path, **changes) -> Run:
    block = {"methods": ["rtn"], "bits": [4], "patches": ["mixed_precision_magnitude"]}
    settings = {"run": "r", "results": str(folder), "replicates": 1, "matrix": [block]}
    return Run(Config(**settings | changes))


@pytest.fixture
def shared(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(sharing.VARIABLE, str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def made(monkeypatch) -> list[Path]:
    """Where `rtn` was called to make something."""
    calls, original = [], rtn.quantize
    monkeypatch.setattr(rtn, "quantize", lambda job: calls.append(job.out) or original(job))
    return calls


def manifest(run: Run, cell: Cell) -> dict:
    return read_json(run.replicate_folder(cell, 0) / "manifest.json")


def weights(run: Run, cell: Cell) -> Path:
    return run.replicate_folder(cell, 0) / "artefact" / "model.safetensors"


def test_a_second_run_takes_what_the_first_made(tmp_path, shared, made, capsys):
    """Artefact and pairs are the same files; the manifest says what the maker's says, and the plan that all is done."""
    first, second = run_in(tmp_path / "a"), run_in(tmp_path / "b")
    for run in (first, second):
        quantize(run, RTN)
        patch(run, MIXED)
    assert len(made) == 1
    assert f"taken from {shared}" in capsys.readouterr().out
    for cell in (RTN, MIXED):
        assert weights(first, cell).samefile(weights(second, cell)), cell
        assert manifest(first, cell) == manifest(second, cell)
        assert (second.at(cell, "artefacts.json")).exists()
        assert read_json(second.replicate_folder(cell, 0) / "status.json")["state"] == "done"
    done = {(job.cell, job.step) for job in jobs(second) if job.state == "done"}
    assert done == {(RTN, "quantize"), (MIXED, "patch")}


def test_either_side_can_be_deleted(tmp_path, shared, made):
    first, second, third = (run_in(tmp_path / name) for name in "abc")
    quantize(first, RTN)
    kept = sha256_folder(weights(first, RTN).parent)
    quantize(second, RTN)
    shutil.rmtree(tmp_path / "a")
    assert sha256_folder(weights(second, RTN).parent) == kept
    shutil.rmtree(shared)
    assert sha256_folder(weights(second, RTN).parent) == kept
    quantize(third, RTN)
    assert len(made) == 2 and sha256_folder(weights(third, RTN).parent) == kept


def test_a_spoilt_entry_is_not_taken(tmp_path, shared, made, capsys):
    first, second = run_in(tmp_path / "a"), run_in(tmp_path / "b")
    quantize(first, RTN)
    (spoilt,) = shared.rglob("model.safetensors")
    spoilt.chmod(0o644)
    spoilt.write_bytes(b"spoilt")
    quantize(second, RTN)
    assert len(made) == 2 and "not what was put there" in capsys.readouterr().out
    assert manifest(second, RTN)["artefact_sha256"] == sha256_folder(weights(second, RTN).parent)


def test_a_patch_writes_beside_a_shared_artefact_and_never_into_it(tmp_path, shared):
    run = run_in(tmp_path / "a")
    quantize(run, RTN)
    before = sha256_folder(weights(run, RTN).parent)
    assert all(not file.stat().st_mode & 0o222 for file in weights(run, RTN).parent.iterdir()), "read-only"
    patch(run, MIXED)
    assert sha256_folder(weights(run, RTN).parent) == before
    assert not weights(run, MIXED).samefile(weights(run, RTN))


def test_one_recipe_is_not_one_artefact(tmp_path):
    """nf4 and fp4 have equal parameters, limits and versions: what makes them differ is their code."""
    run = run_in(tmp_path, matrix=[{"methods": ["nf4", "fp4"], "bits": [4]}])
    cells = [Cell("toy", name, 4) for name in ("nf4", "fp4")]
    assert recipe("quantize", run, cells[0]) == recipe("quantize", run, cells[1])
    how = Making("quantize", dict, [], None)
    assert made_from(run, cells[0], 0, how) != made_from(run, cells[1], 0, how)


def test_what_moves_an_artefact_moves_its_key(tmp_path):
    """What is learned from counts as it is: another run's benchmarks may have left other rows of the same set."""
    run, row = run_in(tmp_path), {"id": "a", "messages": [{"role": "user", "content": "Why?"}]}
    how = [Making("quantize", dict, [], None), Making("quantize", dict, [row], None)]
    how.append(Making("quantize", dict, [], None, proved_on=[row]))
    found = [made_from(run, RTN, 0, one) for one in how]
    found += [made_from(run_in(tmp_path, seed=1), RTN, 0, how[0]), made_from(run_in(tmp_path), RTN, 1, how[0])]
    keys = [shared_key(run, RTN, one) for one in found]
    assert len({*found}) == len({*keys}) == 5
    assert made_from(run_in(tmp_path / "elsewhere"), RTN, 0, how[0]) == found[0]


def test_a_full_precision_pointer_is_no_business_of_the_store(tmp_path, shared):
    quantize(run_in(tmp_path / "a"), Cell("toy", "full", 16))
    assert not list(shared.rglob("made.json"))


def folder_of(path: Path, text: str = "weights") -> Path:
    (path / "artefact").mkdir(parents=True)
    (path / "artefact" / "model.safetensors").write_text(text)
    (path / "pairs.jsonl").write_text("{}\n")
    (path / "status.json").write_text("{}")
    return path


def said(folder: Path) -> dict:
    return {"artefact_sha256": sha256_folder(folder / "artefact"), "seconds": 1.0}


def offer_and_take(place: tuple[Path, Path]) -> bool:
    root, folder = place
    Store(root).offer("abcd", folder, said(folder))
    return Store(root).take("abcd", folder) is not None


def test_many_runs_at_once_leave_one_whole_entry(tmp_path):
    places = [(tmp_path / "store", folder_of(tmp_path / f"run{k}")) for k in range(8)]
    with ProcessPoolExecutor(4) as pool:
        assert all(pool.map(offer_and_take, places))
    entry = tmp_path / "store" / "ab" / "abcd"
    assert sorted(os.listdir(entry.parent)) == ["abcd"] and sorted(os.listdir(entry)) == [
        "artefact",
        "beside",
        "made.json",
    ]
    assert os.listdir(entry / "beside") == ["pairs.jsonl"]
    assert len({(folder / "artefact" / "model.safetensors").stat().st_ino for _, folder in places}) == 1


def test_killed_while_it_shares_it_leaves_no_entry(tmp_path, monkeypatch):
    """What is half there is not seen, and is swept away when it is a day old."""
    folder, root = folder_of(tmp_path / "run"), tmp_path / "store"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patched.setattr(sharing, "remove", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            Store(root).offer("abcd", folder, said(folder))
    (half,) = root.glob(f"ab/.*{PART}")
    assert Store(root).take("abcd", folder) is None
    os.utime(half, (0, 0))
    Store(root).offer("abcd", folder, said(folder))
    assert os.listdir(root / "ab") == ["abcd"]


def test_across_file_systems_it_is_copied(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    folder, other = folder_of(tmp_path / "run"), folder_of(tmp_path / "other", "old")
    Store(tmp_path / "store").offer("abcd", folder, said(folder))
    assert Store(tmp_path / "store").take("abcd", other)["seconds"] == 1.0
    assert (other / "artefact" / "model.safetensors").read_text() == "weights"


def test_a_full_disk_of_the_store_costs_nothing_but_the_sharing(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    folder = folder_of(tmp_path / "run")
    Store(tmp_path / "store").offer("abcd", folder, said(folder))
    assert "not shared" in capsys.readouterr().out and not list((tmp_path / "store").rglob("*abcd*"))


def test_a_store_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    write_json(tmp_path / "file", {})
    monkeypatch.setenv(sharing.VARIABLE, str(tmp_path / "file" / "store"))
    with pytest.raises(UserError, match="a file, not a folder"):
        Store.asked_for()
    monkeypatch.delenv(sharing.VARIABLE)
    assert Store.asked_for() is None


def test_the_documented_command_finds_what_no_run_uses(tmp_path):
    text = Path("docs/disk.md").read_text()
    (command,) = [line for line in text.splitlines() if line.startswith('find "$ARTEFACT_STORE"')]
    for key, run in (("abcd", "kept"), ("abef", "gone")):
        folder = folder_of(tmp_path / run)
        Store(tmp_path / "store").offer(key, folder, said(folder))
    shutil.rmtree(tmp_path / "gone")
    environment = os.environ | {"ARTEFACT_STORE": str(tmp_path / "store")}
    found = subprocess.run(["sh", "-c", command], env=environment, text=True, capture_output=True, check=True)
    assert found.stdout.split() == [str(tmp_path / "store/ab/abef")]
