"""A finished run as one file, laid into another checkout: nothing to do there, and nothing forgotten."""

import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from test_incremental import SUMMARY, jobs_of

pytestmark = pytest.mark.slow

ABSOLUTE = re.compile(rb"(?<![\w.~-])/(?:home|root|tmp|work|scratch|mnt|Users|var)/")


@pytest.fixture(scope="module")
def archived(finished) -> Path:
    done = finished.bitsafe("archive", "results/mini", "mini.tar.gz")
    assert done.returncode == 0 and "records of Snakemake" in done.stdout, done.stdout
    return finished.folder / "mini.tar.gz"


@pytest.fixture
def elsewhere(finished, archived, tmp_path):
    """Another checkout, into which the archive was unpacked."""
    project = type(finished)(tmp_path / "elsewhere")
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


def test_in_another_results_folder_it_is_the_same_run(finished, archived, tmp_path):
    project = type(finished)(tmp_path / "other")
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
    project = type(finished)(tmp_path / "small")
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
