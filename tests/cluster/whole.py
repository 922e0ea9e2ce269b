"""The reduced toy experiment: here, through Slurm, through Slurm with random faults, and with one quantizer more."""

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

from tests.cluster.lab import Lab
from tests.cluster.project import Project, checkout, ended, two_writers

SEED = 6


def local(folder: Path) -> dict:
    """The run on this machine, without Slurm: what the others must equal."""
    project = fresh(folder, None)
    code = project.finish(seconds=3600)
    return {"ok": code == 0, "said": f"{finished(project)} jobs", "code": code}


def through_slurm(folder: Path, lab: Lab, reference: Project) -> dict:
    project = fresh(folder, lab)
    code = project.finish(seconds=3600)
    return judged(project, reference, code) | {"said": counted(project)}


def with_faults(folder: Path, lab: Lab, reference: Project) -> dict:
    """Every half minute something is struck, drawn by a seed; a run that ended is started again, five times at most."""
    project, chance, struck, code, starts = fresh(folder, lab), random.Random(SEED), [], 1, 0
    for _start in range(6):
        starts += 1
        process = project.start()
        while process.poll() is None:
            time.sleep(chance.uniform(15, 30))
            if len(struck) < 12 and process.poll() is None:
                struck.append(strike(project, process, chance))
        code = ended(process)
        if code == 0:
            break
    told = {name: struck.count(name) for name in sorted(set(struck))}
    said = f"{counted(project)}; started {starts} times; " + ", ".join(f"{n} × {name}" for name, n in told.items())
    return judged(project, reference, code) | {"said": said}


def strike(project: Project, process, chance: random.Random) -> str:
    running = project.lab.call("squeue", "-h", "-t", "R", "-o", "%i", check=False).split()
    what = chance.choice(["scancel", "kill -9 of a step", "kill -9 of snakemake", "slurmctld restarted"])
    if what == "scancel" and running:
        project.lab.call("scancel", chance.choice(running), check=False)
    elif what == "kill -9 of a step" and (steps := steps_of(project)):
        os.kill(chance.choice(steps), signal.SIGKILL)
    elif what == "kill -9 of snakemake":
        process.kill()
    elif what == "slurmctld restarted":
        project.lab.restart_controller(2)
    else:
        return "nothing to strike"
    return what


def steps_of(project: Project) -> list[int]:
    """The processes `python -m bitsafe STEP` of this project."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().split(b"\0")
            if line[1:3] == [b"-m", b"bitsafe"] and os.readlink(entry / "cwd") == str(project.folder.resolve()):
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def one_quantizer_more(folder: Path, lab: Lab, finished_run: Project) -> dict:
    """The finished run with nf4 added: what is sent to Slurm."""
    project = finished_run.copied(folder)
    project.lab = lab
    project.log.unlink()
    config = project.folder / project.config
    config.write_text(
        config.read_text().replace(
            "methods: [rtn], bits: [8, 4, 3, 2]}",
            "methods: [rtn], bits: [8, 4, 3, 2]}\n  - {methods: [nf4], bits: [4]}",
        )
    )
    code = project.finish()
    sent = project.submitted()
    exact = sent == ["group_toy_gpu__nf4__4bit__none__quantized_generate_judge_quantize"]
    made = sorted(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", project.said()))
    ok = code == 0 and exact and made.count("quantize") == 1 and made.count("judge") == 2
    return {"ok": ok, "code": code, "said": f"sent: {', '.join(sent)}; jobs run: {', '.join(made)}"}


def fresh(folder: Path, lab: Lab | None) -> Project:
    shutil.rmtree(folder, ignore_errors=True)
    return Project(checkout(folder), "toy", lab)


def finished(project: Project) -> int:
    return len(re.findall(r"Finished jobid: \d+ \(Rule: (?!all)", project.said()))


def counted(project: Project) -> str:
    return f"{finished(project)} jobs finished, {len(project.submitted())} Slurm jobs"


def judged(project: Project, reference: Project, code: int) -> dict:
    equal = code == 0 and project.scores() == reference.scores()
    doubled = two_writers(project.writes)
    return {"ok": equal and not doubled, "code": code, "equal": equal, "two_writers": doubled}
