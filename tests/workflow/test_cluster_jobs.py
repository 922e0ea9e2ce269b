"""What Slurm is asked for, read from the command lines that a stand-in for Slurm writes down: it runs nothing."""

import os
import re
import shlex
import socket
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MODEL = """
  models:
    big: {base: toy, resources: {mem_mb: 5000, runtime: 100, gpu: 2}}
"""
FAR = """
  judges:
    far: {base: keyword, judge_slots: 1, resources: {mem_mb: 700, runtime: 5}}
"""
STAND_INS = {
    "sbatch": 'printf "%s\\n" "$*" >> $FAKE/sent; n=$(wc -l < $FAKE/sent); echo $n',
    "squeue": """case "$*" in
  *--me*) cat $FAKE/queue;;
  *) i=0; while read -r _; do i=$((i+1)); echo "$i|FAILED"; done < $FAKE/sent;;
esac""",
    "scancel": 'printf "%s\\n" "$*" >> $FAKE/cancelled; : > $FAKE/queue',
    "sinfo": "echo 'cpu*'",
    "scontrol": "echo 'MinJobAge = 300 sec'",
    "sacct": "exit 1",
    "sacctmgr": "cat $FAKE/accounts",
}


@pytest.fixture
def slurm(tmp_path):
    """A folder with stand-ins for Slurm's commands; `queue` is what squeue shows of this user."""
    for name, body in STAND_INS.items():
        file = tmp_path / name
        file.write_text(f"#!/bin/bash\nFAKE={tmp_path}\ntouch $FAKE/sent $FAKE/queue $FAKE/accounts\n{body}\n")
        file.chmod(0o755)
    return tmp_path


def submit(project, slurm: Path, *arguments: str) -> tuple[subprocess.CompletedProcess, dict[str, dict[str, str]]]:
    """The run's end, and the options of each job by its comment (the name of its group or rule)."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{slurm}:{before}"
    try:
        fast = ["--retries", "0", "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "1"]
        done = project.snakemake("--profile", "slurm", *fast, *arguments)
    finally:
        os.environ["PATH"] = before
    sent = (slurm / "sent").read_text().splitlines() if (slurm / "sent").exists() else []
    return done, {job["log"]: job for job in map(options, sent)}


def options(line: str) -> dict[str, str]:
    words = shlex.split(line.split(" --wrap")[0])
    found = {key: value for key, value in pairwise(words) if key.startswith("-")}
    found |= dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    return found | {"log": re.search(r"slurm_logs/([^/]+)/", found["--output"])[1]}


@pytest.fixture
def unmade(project):
    """The finished project with a model that takes two GPUs, not made yet."""
    with (project.folder / "mini.yaml").open("a") as config:
        config.write(MODEL.lstrip("\n") + "models: [big]\nresources: {steps: {judge: {runtime: 30}}}\n")
    return project


def test_each_cell_is_one_job_with_the_resources_of_its_widest_moment(unmade, slurm):
    done, jobs = submit(unmade, slurm)
    rtn = jobs["group_big__rtn__4bit__none__quantized_generate_judge_quantize"]
    assert rtn["--mem"] == "5000", "the largest of what runs in turn: 5000, 5000, and two judges of 1000 side by side"
    assert rtn["--gpus"] == "2" and rtn["-t"] == str(100 + 100 + 30), "GPUs are not added up, minutes are"
    assert rtn["-p"] == "cpu" and "--array" not in rtn
    assert len(jobs) == 3, "the patched cell waits for the quantized one"
    assert "failed, SLURM status is: 'FAILED'" in done.stdout, "Slurm's word for it"
    names = {job["--job-name"].rsplit("_", 1)[0] for job in jobs.values()}
    assert len(names) == 1 and names.pop().startswith("bitsafe-mini-"), "the jobs of a run are known by their name"


def test_a_judge_over_the_network_goes_out_by_itself(project, slurm):
    with (project.folder / "mini.yaml").open("a") as config:
        config.write(FAR.lstrip("\n") + "judges: [keyword, reference, far]\n")
    _done, jobs = submit(project, slurm)
    assert set(jobs) == {"rule_judge"}, "one job a cell, and no group"
    far = jobs["rule_judge"]
    assert far["--mem"] == "700" and "--gpus" not in far and far["--comment"].endswith("_far")


def test_partitions_and_types_of_gpu_are_the_users(unmade, slurm):
    text = "partitions:\n  a100: {max_gpu: 4}\n  small: {max_runtime: 2d}\n"
    (unmade.folder / "slurm/partitions.yaml").write_text(text)
    (slurm / "accounts").write_text("mine\n")
    unmade.edit("slurm/config.yaml", "  # slurm_account: my_account", "  slurm_account: mine")
    unmade.edit("slurm/config.yaml", "  # gpu_model: h100", "  gpu_model: h100")
    _done, jobs = submit(unmade, slurm)
    assert {(job["-p"], job["--gpus"]) for job in jobs.values()} == {("a100", "h100:2")}


def test_an_account_that_is_not_the_users_ends_the_run_with_its_reason(unmade, slurm):
    """The plugin alone would wait for ever: it cannot tell that a group failed before it was sent."""
    unmade.edit("slurm/config.yaml", "  # slurm_account: my_account", "  slurm_account: mine")
    (slurm / "accounts").write_text("theirs\n")
    done, jobs = submit(unmade, slurm)
    assert done.returncode == 1 and not jobs
    assert "account mine appears to be invalid" in done.stdout


def test_a_cluster_that_knows_gres_alone(unmade, slurm):
    text = (unmade.folder / "slurm/config.yaml").read_text()
    start = text.index("# set-resources:")
    block = text[start : text.index("\n\n", start)]
    (unmade.folder / "slurm/config.yaml").write_text(text.replace(block, block.replace("# ", "")))
    done, jobs = submit(unmade, slurm)
    job = jobs["group_big__rtn__4bit__none__quantized_generate_quantize"]
    assert job["--gres"] == "gpu:1" and "--gpus" not in job, done.stdout[-3000:]


def test_a_judge_that_is_added_asks_for_no_gpu(project, slurm):
    (project.folder / "slurm/partitions.yaml").write_text("partitions: {a100: {max_gpu: 4}, small: {}}\n")
    with (project.folder / "mini.yaml").open("a") as config:
        config.write("  judges: {strict: {base: keyword, phrases: [Sorry]}}\njudges: [keyword, reference, strict]\n")
    _done, jobs = submit(project, slurm)
    assert len(jobs) == 4 and {job["-p"] for job in jobs.values()} == {"small"}
    assert not any("--gpus" in job for job in jobs.values())


def queue_of(project, slurm: Path, *states: str) -> str:
    """Let squeue show jobs of this project's run in these states, and one of another run."""
    from bitsafe.cluster.earlier import name_of

    name = name_of(project.folder / "results/mini")
    rows = [f"{number}|{state}|{name}_1234" for number, state in enumerate(states, 41)]
    (slurm / "queue").write_text("\n".join([*rows, "7|RUNNING|bitsafe-other-0123456789_1", ""]))
    return name


def test_a_start_cancels_the_jobs_of_an_earlier_one(unmade, slurm):
    queue_of(unmade, slurm, "RUNNING", "PENDING")
    done, jobs = submit(unmade, slurm)
    assert (slurm / "cancelled").read_text().split() == ["41", "42"], "and not another run's"
    assert "earlier start: cancelled: 41, 42" in done.stdout and jobs


def test_a_dry_run_cancels_nothing(unmade, slurm):
    queue_of(unmade, slurm, "RUNNING")
    done, jobs = submit(unmade, slurm, "-n")
    assert done.returncode == 0 and not jobs and not (slurm / "cancelled").exists()


def test_jobs_sent_from_another_machine_are_left_alone(unmade, slurm):
    """A lock of the file system may not reach there: its Snakemake may live."""
    queue_of(unmade, slurm, "RUNNING")
    lock = unmade.folder / "results/mini/.lock"
    lock.write_text("process 12 on elsewhere")
    done, jobs = submit(unmade, slurm)
    said = [line for line in done.stdout.splitlines() if line.startswith("bitsafe: ")]
    assert done.returncode == 2 and not jobs and not (slurm / "cancelled").exists()
    assert len(said) == 1 and "sent from elsewhere" in said[0] and "delete results/mini/.lock" in said[0]
    assert lock.read_text() == "process 12 on elsewhere"
    lock.write_text(f"process 12 on {socket.gethostname()}")
    assert submit(unmade, slurm)[1]


def test_what_nobody_recorded_is_made_again_when_its_recipe_changes(project):
    """A job that outlived its run leaves files without a record; a new VERSION must not miss them."""
    assert (
        project.snakemake("--cleanup-metadata", "results/mini/toy/rtn/4bit/none/quantized/artefacts.json").returncode
        == 0
    )
    project.edit("workflow/bitsafe/quantizers/rtn.py", "VERSION = 1", "VERSION = 2")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout[-3000:]
    assert "rule quantize" in done.stdout
