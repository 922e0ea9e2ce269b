"""A checkout of its own in which Snakemake runs, here or through Slurm, and what it leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from tests.checkout import ROOT, copied_to
from tests.cluster.lab import Lab

FAST = ["--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10"]


def checkout(folder: Path) -> Path:
    """The repository and the hold as sitecustomize.py; over what is there, which stays."""
    copied_to(folder)
    shutil.copy2(ROOT / "tests/cluster/hold.py", folder / "workflow/sitecustomize.py")
    return folder


class Project:
    """config: a file below tests/cluster; the run's name is the file's."""

    def __init__(self, folder: Path, config: str, lab: Lab | None = None) -> None:
        self.folder, self.config, self.lab = Path(folder), f"tests/cluster/{config}.yaml", lab
        self.run = self.folder / "results" / config
        self.log = self.folder / f"{config}.log"
        self.writes = self.folder / "writes.jsonl"

    def copied(self, folder: Path) -> "Project":
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder, self.run.name, self.lab)

    def environment(self, **more: str) -> dict[str, str]:
        threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        own = {"PYTHONPATH": str(self.folder / "workflow"), "BITSAFE_WRITE_LOG": str(self.writes)}
        return {**(self.lab.environment() if self.lab else os.environ), **threads, **own, **more}

    def start(self, *arguments: str, **more: str) -> subprocess.Popen:
        """Begin `snakemake` as a person's terminal would; its output goes to the end of the log."""
        where = ["--cores", "all", "--profile", "slurm", *FAST] if self.lab else ["--cores", "2"]
        if self.lab and self.lab.database:
            where += ["--slurm-status-command", "sacct"]
        command = [sys.executable, "-m", "snakemake", "--configfile", self.config, *where, *arguments]
        listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored by what a script starts
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(**more),
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=listen,
            )

    def finish(self, *arguments: str, seconds: float = 900) -> int:
        """Run to the end; its exit code."""
        return ended(self.start(*arguments), seconds)

    def scores(self) -> bytes:
        return (self.run / "scores.csv").read_bytes()

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def submitted(self) -> list[str]:
        """The groups and rules that were sent to Slurm, in order, from the log."""
        logs = [line for line in self.said().splitlines() if "has been submitted with SLURM jobid" in line]
        return [line.split("slurm_logs/")[1].split("/")[0] for line in logs]

    def forget(self, cell: str, *made: str) -> None:
        """Take away what these folders and files of a cell are, and the scores: the next run makes them again."""
        for path in (path for pattern in made for path in (self.run / cell).glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for file in ("score.json", "scores.csv", "report.html"):
            (self.run / file).unlink(missing_ok=True)


def ended(process: subprocess.Popen, seconds: float = 900) -> int:
    """The exit code; one that does not end in time is killed, and that is an error."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise RuntimeError(f"still running after {seconds:.0f} s") from None


def wait_until(condition, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.2)


def two_writers(writes: Path) -> list[str]:
    """Every time that a step began on an output while another process was writing it; [] is the proof.

    A write that ended lasts from its line `begin` to its line `end`. One that was killed has no end: whether its
    process still lived is what the next one wrote down (`other_alive`) before it asked for the lock.
    """
    found, open_ = [], {}
    for line in writes.read_text().splitlines():
        row = json.loads(line)
        what, me = row["what"], (row["host"], row["pid"])
        others = open_.setdefault(what, set())
        if row["event"] != "begin":
            others.discard(me)
        elif row["other_alive"] and (row["other"]["host"], row["other"]["pid"]) in others:
            found.append(f"{what}: {me} beside {row['other']}")
        else:
            open_[what] = {me}
    return found
