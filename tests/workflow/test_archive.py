"""A finished run as one file, laid into another checkout: nothing to do there, and nothing forgotten."""

import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from conftest import Project
from test_incremental import SUMMARY, jobs_of

ABSOLUTE = re.compile(rb"(?<![\w.~-])/(?:home|root|tmp|work|scratch|mnt|Users|var)/")


@pytest.fixture(scope="module")
def archived(finished) -> Path:
    done = finished.bitsafe("archive", "results/mini", "mini.tar.gz")
    assert done.returncode == 0 and "records of Snakemake" in done.stdout, done.stdout
    return finished.folder / "mini.tar.gz"


@pytest.fixture
def elsewhere(finished, archived, tmp_path) -> Project:
    """Another checkout, into which the archive was unpacked."""
    project = Project(tmp_path / "elsewhere")
    done = project.bitsafe("unpack", str(archived))
    assert done.returncode == 0, done.stdout
    return project


def contents(run: Path) -> dict[str, bytes]:
    files = {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()}
    return {name: data for name, data in files.items() if name != "config.json" and not name.startswith(".")}


def test_at_another_place_there_is_nothing_to_do(finished, elsewhere):
    assert contents(elsewhere.folder / "results/mini") == contents(finished.folder / "results/mini")
    done = elsewhere.snakemake()
    assert done.returncode == 0 and "Nothing to be done" in done.stdout, done.stdout
    status = elsewhere.bitsafe("status", "results/mini").stdout
    assert status == finished.bitsafe("status", "results/mini").stdout and "todo" not in status
    assert elsewhere.bitsafe("scores", "results/mini").stdout == finished.bitsafe("scores", "results/mini").stdout


def test_at_another_place_a_change_plans_what_it_did_here(elsewhere):
    """Snakemake's records went along: without them a raised VERSION would be passed over there for ever."""
    elsewhere.edit("workflow/bitsafe/quantizers/rtn.py", "VERSION = 1", "VERSION = 2")
    assert elsewhere.planned() == jobs_of("toy/rtn/4/none/quantized") | SUMMARY
    shutil.rmtree(elsewhere.folder / ".snakemake")
    assert elsewhere.planned() == set(), "this is what a mere copy of the folder would do"


def test_in_another_results_folder_it_is_the_same_run(archived, tmp_path):
    project = Project(tmp_path / "other")
    assert project.bitsafe("unpack", str(archived), "kept/runs").returncode == 0
    project.edit("mini.yaml", "run: mini", "run: mini\nresults: kept/runs")
    assert project.planned() == set()
    project.edit("workflow/bitsafe/patches/qresafe.py", "VERSION = 1", "VERSION = 2")
    assert project.planned() == jobs_of("toy/ste/4/harmful/qresafe") | SUMMARY


def test_no_path_of_this_machine_goes_along(archived):
    with tarfile.open(archived) as tar:
        members = [member for member in tar if not member.name.endswith((".safetensors", ".png", ".pdf"))]
        found = {member.name: ABSOLUTE.findall(tar.extractfile(member).read()) for member in members}
        assert {member.uname for member in members} == {""} and {member.uid for member in members} == {0}
    assert len(found) > 100 and {name: paths for name, paths in found.items() if paths} == {}


def test_without_weights_it_is_small_and_says_what_it_lacks(finished, tmp_path):
    """Nothing to do as long as nothing new is asked; then one line says how the weights come back."""
    assert finished.bitsafe("archive", "results/mini", str(tmp_path / "small.tar"), "--no-weights").returncode == 0
    project = Project(tmp_path / "small")
    assert "weights were left out" in project.bitsafe("unpack", str(tmp_path / "small.tar")).stdout
    assert not list((project.folder / "results/mini").rglob("*.safetensors"))
    assert project.planned() == set()
    config = project.folder / "results/mini/config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"benchmarks": ["few_forbidden", "few_borderline", "few_benign"]}))
    done = project.bitsafe("generate", "results/mini", "toy/rtn/4bit/none")
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "delete results/mini/toy/rtn/4bit/none/quantized/artefacts.json and run again" in done.stdout
    index = project.folder / "results/mini/toy/rtn/4bit/none/quantized/artefacts.json"
    sha = json.loads((index.parent / "rep0/manifest.json").read_text())["artefact_sha256"]
    index.unlink()
    assert project.bitsafe("quantize", "results/mini", "toy/rtn/4bit/none").returncode == 0
    assert json.loads((index.parent / "rep0/manifest.json").read_text())["artefact_sha256"] == sha
    again = project.bitsafe("generate", "results/mini", "toy/rtn/4bit/none").stdout
    assert "24 answers generated, 48 found in the store" in again


def refused(project, *arguments: str) -> str:
    done = project.bitsafe(*arguments)
    assert done.returncode == 2 and done.stdout.count("\n") == 1, done.stdout
    return done.stdout


def test_mistakes_are_one_line(finished, archived, elsewhere, tmp_path):
    assert "there is such a run already" in refused(elsewhere, "unpack", str(archived))
    assert "there is such a file already" in refused(finished, "archive", "results/mini", str(archived))
    assert ".tar.gz" in refused(finished, "archive", "results/mini", "mini.zip")
    assert "no such file" in refused(elsewhere, "unpack", "absent.tar")
    data = archived.read_bytes()
    (tmp_path / "torn.tar.gz").write_bytes(data[: len(data) // 2])
    assert "not a whole archive" in refused(elsewhere, "unpack", str(tmp_path / "torn.tar.gz"), "new")
    (tmp_path / "text.tar").write_text("text")
    assert "not a whole archive" in refused(elsewhere, "unpack", str(tmp_path / "text.tar"), "new")
    assert not list((elsewhere.folder / "new").glob("*")), "on any fault nothing is left"


def rewritten(archive: Path, out: Path, change) -> Path:
    """A copy of an archive with its members passed through `change`; members it turns into None are left out."""
    with tarfile.open(archive) as old, tarfile.open(out, "w") as new:
        for member in old:
            data = old.extractfile(member)
            if (changed := change(member)) is not None:
                new.addfile(changed, data if changed.isreg() else None)
    return out


def test_what_is_not_as_it_was_archived_is_refused(archived, elsewhere, tmp_path):
    """A changed byte, a missing or added file, a way out of the folder: nothing is laid anywhere."""

    def swapped(member):
        if member.name.endswith("scores.csv"):
            member.name = member.name.replace("scores.csv", "scored.csv")
        return member

    def without(member):
        return None if member.name.endswith("report.html") else member

    def cut(member):
        return None if member.name.endswith("archive.json") else member

    def outside(member):
        member.name = member.name.replace("mini/report.html", "mini/../../outside.html")
        return member

    def linked(member):
        if member.name.endswith("report.html"):
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        return member

    said = {swapped: "is not the file that was archived", without: "report.html is not", cut: "no archive.json"}
    said |= {outside: "not a file of a run", linked: "not a file of a run"}
    for change, words in said.items():
        broken = rewritten(archived, tmp_path / f"{change.__name__}.tar", change)
        assert words in refused(elsewhere, "unpack", str(broken), "new"), change
    assert not list((elsewhere.folder / "new").glob("*")) and not (elsewhere.folder / "outside.html").exists()


def test_a_run_under_way_is_not_archived(finished, tmp_path):
    import fcntl

    with (finished.folder / "results/mini/.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "in use by another run" in refused(finished, "archive", "results/mini", str(tmp_path / "a.tar"))
    assert os.listdir(tmp_path) == []
