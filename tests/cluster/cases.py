"""One case: the finished mini run loses a part, a fault hits the run that makes it again, a last start finishes it."""

import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.faults import FAULTS, PHASES, Held
from tests.cluster.project import Project, two_writers

DATABASE_TOO = ("scancel", "time limit")


def play(base: Project, fault: str, phase: str, folder: Path) -> dict:
    """What happened, as a row of the record. `ok`: the undisturbed run's scores, and no output with two writers."""
    started, project = time.monotonic(), base.copied(folder)
    project.log.unlink(missing_ok=True)
    project.writes.unlink(missing_ok=True)
    row = {"fault": fault, "phase": phase, "ok": False, "said": ""}
    try:
        with small_disk(project) if fault == "disk full" else nothing():
            _step, cell, made = PHASES[phase]
            project.forget(cell, *made)
            held = Held(project, phase, *(["--retries", "0"] if fault == "disk full" else []))
            try:
                row["said"], code = FAULTS[fault](held)
            finally:
                held.go()
                if held.main.poll() is None:
                    held.main.kill()
            row |= judged(base, project, code)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        row["said"] = f"{row['said']} ({error})".strip()
    finally:
        project.lab.call("scancel", "--me", check=False)
    return row | {"seconds": round(time.monotonic() - started)}


def judged(base: Project, project: Project, code: int) -> dict:
    equal = code == 0 and project.scores() == base.scores()
    doubled = two_writers(project.writes)
    return {"ok": equal and not doubled, "code": code, "equal": equal, "two_writers": doubled}


@contextmanager
def nothing():
    yield


@contextmanager
def small_disk(project: Project):
    """The project's results on a file system of 24 MB."""
    results = project.folder / "results"
    kept = project.folder / "results.kept"
    shutil.move(results, kept)
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(results)], check=True, capture_output=True)
    try:
        shutil.copytree(kept, results, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(results)], check=False)
