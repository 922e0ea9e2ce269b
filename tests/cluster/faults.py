"""What can befall a run: each fault is dealt to a step that is held in the middle of its work (hold.py)."""

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.cluster.lab import HOST
from tests.cluster.project import Project, ended, wait_until

RTN, PATCHED = "toy_gpu/rtn/4bit/none", "toy_gpu/ste/4bit/harmful/qresafe"
VERDICTS = ["verdicts.*.json", "rep0/verdicts"]
RESTARTED = "Trying to restart job"  # of a group Snakemake does not say why it failed
ANSWERS = [*VERDICTS, "answers.json", "rep0/answers*"]
PHASES = {  # the step that is held; the cell, and what of it is made again: by that step, and by those after it
    "quantize": (f"quantize {RTN}", f"{RTN}/quantized", ["*"]),
    "generate": (f"generate {RTN}/quantized", f"{RTN}/quantized", ANSWERS),
    "judge": (f"judge {RTN}/quantized", f"{RTN}/quantized", VERDICTS),
    "patch": (f"patch {PATCHED}", PATCHED, ["*"]),
}


class Held:
    """A run of `project` in which one step waits; `go` lets it, and every later attempt, pass."""

    def __init__(self, project: Project, phase: str, *arguments: str) -> None:
        self.project, self.gate = project, project.folder / "gate"
        self.gate.mkdir()
        self.hold = {"HOLD": PHASES[phase][0], "GATE": str(self.gate)}
        self.main = project.start("score", *arguments, **self.hold)
        wait_until(lambda: self.pid or self.main.poll() is not None, 240, "the step is held")
        if self.main.poll() is not None:
            raise RuntimeError("the run ended before the step was reached")

    @property
    def pid(self) -> int | None:
        file = self.gate / "held"
        return int(file.read_text() or 0) if file.exists() else None

    @property
    def job(self) -> str:
        """The Slurm job that runs the step."""
        return self.project.lab.call("squeue", "-h", "-t", "R", "-o", "%i").split()[0]

    def go(self) -> None:
        (self.gate / "go").touch()

    def again(self) -> int:
        """Start once more, as a person would, and let it pass when the earlier jobs are settled."""
        before = len(self.project.said())
        process = self.project.start("score", **self.hold)
        if self.project.lab.call("squeue", "-h", "-o", "%i").split():
            for words in ("jobs of an earlier start", "SLURM run ID"):
                wait_until(lambda words=words: words in self.project.said()[before:], 120, words)
        time.sleep(1)
        self.go()
        return ended(process)


def interrupted(signal_: signal.Signals):
    """The run is ended by a signal; what is left in the queue is told."""

    def fault(held: Held) -> tuple[str, int]:
        os.kill(held.main.pid, signal_)
        started = time.monotonic()
        code = ended(held.main, 120)
        took = time.monotonic() - started
        time.sleep(2)
        left = len(held.project.lab.call("squeue", "-h", "-o", "%i").split())
        said = f"ended in {took:.0f} s with code {code}, {left} job(s) left"
        return said, held.again()

    return fault


def kept_alive(deal):
    """A fault that a job meets and the run survives, or does not; `deal(held)` deals it and says what it did."""

    def fault(held: Held) -> tuple[str, int]:
        said = deal(held)
        code = ended(held.main)
        if code == 0:
            return f"{said}; the same run went on", 0
        return f"{said}; the run ended with code {code}", held.again()

    return fault


def scancel(held: Held) -> str:
    held.project.lab.call("scancel", held.job)
    wait_until(lambda: RESTARTED in held.project.said(), 60, "the run sees it cancelled")
    held.go()
    return "job cancelled"


def timeout(held: Held) -> str:
    held.project.lab.call("scontrol", "update", f"JobId={held.job}", "TimeLimit=1")
    wait_until(lambda: RESTARTED in held.project.said(), 200, "the run sees the time limit")
    held.go()
    return "job over its time limit"


def out_of_memory(held: Held) -> str:
    job = held.job
    (held.gate / "eat").touch()
    wait_until(lambda: not Path(f"/proc/{held.pid}").exists(), 90, "the job is killed for its memory")
    (held.gate / "eat").unlink()
    held.go()
    time.sleep(2)
    state = held.project.lab.call("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip()
    return f"job over its memory ({state})"


def drained(held: Held) -> str:
    node = ["scontrol", "update", f"NodeName={HOST}"]
    held.project.lab.call(*node, "State=DRAIN", "Reason=test")
    held.go()
    time.sleep(8)
    held.project.lab.call(*node, "State=RESUME")
    return "node drained 8 s, and back"


def step_killed(held: Held) -> str:
    os.kill(held.pid, signal.SIGKILL)
    held.go()
    return "step killed"


def controller_restarted(held: Held) -> str:
    held.project.lab.restart_controller()
    held.go()
    return "slurmctld away 4 s"


def disk_full(held: Held) -> tuple[str, int]:
    """The results lie on a small disk, which is full when the step goes on, and has room again for the next start."""
    ballast = held.project.folder / "results/ballast"
    subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=64k"], capture_output=True, check=False)
    held.go()
    code = ended(held.main)
    told = "disk is full" in held.project.said() or any(
        "disk is full" in file.read_text(errors="replace") for file in held.project.folder.rglob("slurm_logs/**/*.log")
    )
    ballast.unlink()
    return f"run ended with code {code}{', told plainly' if told else ''}", held.again()


FAULTS = {
    "SIGINT of snakemake": interrupted(signal.SIGINT),
    "SIGTERM of snakemake": interrupted(signal.SIGTERM),
    "kill -9 of snakemake": interrupted(signal.SIGKILL),
    "scancel": kept_alive(scancel),
    "time limit": kept_alive(timeout),
    "out of memory": kept_alive(out_of_memory),
    "node drained and back": kept_alive(drained),
    "kill -9 of the step": kept_alive(step_killed),
    "disk full": disk_full,
    "slurmctld restarted": kept_alive(controller_restarted),
}
