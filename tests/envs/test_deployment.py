"""The rules under --sdm conda and --sdm apptainer, with stand-ins for both: what they are given, and what they call.

The stand-ins do as conda and apptainer do with PATH and environment, and their `python` is the one that runs this. They
solve, download and isolate nothing: that is untested where no channel and no image can be had.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.checkout import copied_to

from bitsafe.matrix.tables import ROOT

CONDA = """#!/bin/bash
case "$*" in
  "info --json") echo '{{"conda_prefix": "{prefix}", "platform": "linux-64"}}' ;;
  "--version") echo "conda 24.11.1" ;;
  "config --get channel_priority --json") echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
  "env create"*)
    while [ $# -gt 0 ]; do case "$1" in --file) file=$2 ;; --prefix) env=$2 ;; esac; shift; done
    mkdir -p "$env/bin" && cp "$file" {prefix}/asked.yaml && cp {prefix}/python "$env/bin/python" ;;
  "clean "*) ;;
  *) echo "stand-in: conda $*" >&2; exit 1 ;;
esac
"""
ACTIVATE = 'export PATH="$1/bin:/usr/bin:/bin" CONDA_PREFIX="$1"\n'
APPTAINER = """#!/bin/bash
if [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi
[ "$1" = exec ] || {{ echo "stand-in: apptainer $*" >&2; exit 1; }}
shift
while [ "${{1#--}}" != "$1" ]; do if [ "$1" = --home ]; then cd "$2"; fi; shift 2; done
echo "$1" >> {prefix}/images; shift
exec env -i HOME="$PWD" PATH={prefix}:/usr/bin:/bin BITSAFE_ENVS={prefix}/envs "$@"
"""
PYTHON = """#!/bin/bash
echo "$@ | site=${{PYTHONNOUSERSITE:-}} path=${{PYTHONPATH:-}}" >> {prefix}/called
[ "$1 $2 $3" = "-m pip install" ] && exit 0
exec {python} "$@"
"""
QUANTIZE = "results/mini/toy/{method}/4bit/{risk}/quantized/artefacts.json"


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The repository's files in a folder of their own, without .envs."""
    return copied_to(tmp_path / "checkout")


@pytest.fixture
def stand_ins(tmp_path) -> Path:
    """A folder with `conda` and `apptainer`; what was called stands there in `called`."""
    folder = tmp_path / "software"
    texts = {"conda": CONDA, "bin/activate": ACTIVATE, "apptainer": APPTAINER, "python": PYTHON}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(
            text if name == "bin/activate" else text.format(prefix=folder, python=sys.executable)
        )
        (folder / name).chmod(0o755)
    return folder


def snakemake(checkout: Path, stand_ins: Path | None, *arguments: str, method: str = "rtn", risk: str = "none"):
    block = f"matrix: [{{methods: [{method}], bits: [4], risks: [{risk}]}}]\n"
    (checkout / "mini.yaml").write_text(f"run: mini\nreplicates: 1\n{block}")
    path = f"{stand_ins}:{os.environ['PATH']}" if stand_ins else os.environ["PATH"]
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(checkout / "workflow")}
    target = QUANTIZE.format(method=method, risk=risk)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "mini.yaml", *arguments, "--", target]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=checkout, env=environment, text=True, check=False, **pipes)


def calls(stand_ins: Path) -> list[str]:
    return (stand_ins / "called").read_text().splitlines()


def test_under_conda_a_rule_runs_in_its_environment_with_the_lock_in_it(checkout, stand_ins):
    done = snakemake(checkout, stand_ins, "--sdm", "conda")
    assert done.returncode == 0, done.stdout
    assert (stand_ins / "asked.yaml").read_bytes() == (ROOT / "envs/core.yaml").read_bytes()
    deployed, ran = calls(stand_ins)
    assert "--no-deps --require-hashes -r envs/core.lock.txt" in deployed
    assert ran.startswith("-m bitsafe quantize results/mini") and f"site=1 path={checkout}/workflow" in ran
    assert (checkout / QUANTIZE.format(method="rtn", risk="none")).exists()
    assert "Nothing to be done" in snakemake(checkout, stand_ins, "-n", "--sdm", "conda").stdout
    assert "Software environment definition has changed" in snakemake(checkout, stand_ins, "-n").stdout
    quiet = snakemake(checkout, stand_ins, "-n", "--rerun-triggers", "mtime", "params", "input")
    assert "Nothing to be done" in quiet.stdout


def test_in_an_image_a_rule_runs_with_what_the_image_brings(checkout, stand_ins):
    (checkout / ".envs").mkdir()
    (checkout / ".envs/bitsafe.sif").write_text("an image")
    done = snakemake(checkout, stand_ins, "--sdm", "apptainer")
    assert done.returncode == 0, done.stdout
    (ran,) = calls(stand_ins)
    assert ran.startswith("-m bitsafe quantize results/mini") and f"site=1 path={checkout}/workflow" in ran
    assert (stand_ins / "images").read_text().strip().endswith(".envs/bitsafe.sif")


def test_an_environment_that_the_image_lacks_is_the_cells_own_failure(checkout, stand_ins):
    (checkout / ".envs").mkdir()
    (checkout / ".envs/bitsafe.sif").write_text("an image")
    done = snakemake(checkout, stand_ins, "--sdm", "apptainer", method="gptq_gptqmodel", risk="benign")
    assert done.returncode == 1
    cell = checkout / QUANTIZE.format(method="gptq_gptqmodel", risk="benign")
    status = json.loads((cell.parent / "rep0/status.json").read_text())
    assert status["state"] == "failed" and ".envs/gptqmodel: not installed" in status["reason"]


@pytest.mark.parametrize(
    ("arguments", "standing_in", "method", "words"),
    [
        (["--sdm", "conda"], False, "rtn", "no conda on PATH"),
        (["--sdm", "apptainer"], False, "rtn", "no apptainer on PATH"),
        (["--sdm", "apptainer"], True, "rtn", "apptainer build .envs/bitsafe.sif envs/bitsafe.def"),
        (["--sdm", "conda", "apptainer"], True, "rtn", "name one of the two"),
        (["--sdm", "conda"], True, "gptq_autogptq", "make env NAME=auto-gptq"),
        ([], True, "gptq_autogptq", "make env NAME=auto-gptq"),
    ],
)
def test_what_cannot_be_had_is_one_line(checkout, stand_ins, arguments, standing_in, method, words):
    if not standing_in and any(map(shutil.which, ["conda", "apptainer", "singularity"])):
        pytest.skip("conda or apptainer is installed here")
    risk = "none" if method == "rtn" else "benign"
    done = snakemake(checkout, stand_ins if standing_in else None, "-n", *arguments, method=method, risk=risk)
    lines = [line for line in done.stdout.splitlines() if line.startswith("bitsafe: ")]
    assert done.returncode == 2 and len(lines) == 1 and words in lines[0], done.stdout
    assert "Traceback" not in done.stdout
