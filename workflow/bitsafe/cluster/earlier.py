"""Slurm jobs that outlived the Snakemake that sent them (kill -9, a login node that went down).

They go on, and a new start knows nothing of them: it would send their cells again, and two jobs would write one file.
So the jobs of a run carry its name, and a start ends what it finds of them before it looks at a single file.
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bitsafe.errors import UserError
from bitsafe.files import sha256_text

PATIENCE = 600  # seconds a cancelled job may take to be gone: Slurm's KillWait, an epilog, a node that does not answer
HELD = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


@dataclass(frozen=True)
class Job:
    id: str
    state: str


def name_of(folder: Path) -> str:
    """What the names of all Slurm jobs of a run folder begin with: letters, digits, `_` and `-`, at most 50."""
    where = Path(folder).resolve()
    return f"bitsafe-{re.sub(r'[^A-Za-z0-9_-]', '-', where.name)[:28]}-{sha256_text(str(where))[:10]}"


def asked_for() -> str:
    """What becomes of earlier jobs that run: BITSAFE_EARLIER_JOBS, or `cancel`."""
    asked = os.environ.get("BITSAFE_EARLIER_JOBS", "cancel")
    if asked not in ("cancel", "wait"):
        raise UserError(f"BITSAFE_EARLIER_JOBS: {asked!r}: say cancel or wait")
    return asked


def jobs_in_queue(name: str) -> list[Job]:
    """This user's jobs of that run which have not ended: pending, running, or on their way out."""
    rows = (line.split("|", 2) for line in slurm("squeue", "--me", "--noheader", "--format=%i|%T|%j").splitlines())
    return [Job(number, state) for number, state, called in rows if called.startswith(name)]


def settle(folder: Path, how: str, elsewhere: str | None) -> None:
    """End the earlier jobs of a run folder, and return when none is left.

    how: `cancel` all of them, or `wait` for those that run; one that has not begun is cancelled either way.
    elsewhere: another machine that held the folder last. A lock may not reach from there to here, so its jobs may have
    a Snakemake that lives: a UserError.
    """
    name = name_of(folder)
    found = jobs_in_queue(name)
    if not found:
        return
    if elsewhere:
        remedy = f"start again there, or delete {folder}/.lock if you know that Snakemake has ended there"
        raise UserError(f"{folder}: {len(found)} jobs of it are in the queue, sent from {elsewhere}: {remedy}")
    cancelled = [job.id for job in found if how == "cancel" or job.state in HELD]
    awaited = [job.id for job in found if job.id not in cancelled]
    for ids, what in ((cancelled, "cancelled"), (awaited, "waited for")):
        if ids:
            print(f"bitsafe: {folder}: jobs of an earlier start: {what}: {', '.join(ids)}", file=sys.stderr)
    if cancelled:
        slurm("scancel", *cancelled)
    wait_for_the_end(name, set(awaited))


def wait_for_the_end(name: str, awaited: set[str]) -> None:
    """Poll until nothing of that name is left; a UserError if what was cancelled does not go away."""
    deadline, pause = time.monotonic() + PATIENCE, 1.0
    while left := {job.id for job in jobs_in_queue(name)}:
        if time.monotonic() > deadline and left - awaited:
            ids = ", ".join(sorted(left - awaited))
            raise UserError(f"jobs {ids} of an earlier start do not end: `scontrol show job` says why; then run again")
        time.sleep(pause)
        pause = min(pause * 1.5, 30)


def slurm(*command: str, tries: int = 5) -> str:
    """What a Slurm command prints; asked again while the controller does not answer, then a UserError."""
    for attempt in range(tries):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        time.sleep(3 * attempt)
    raise UserError(f"{command[0]}: {done.stderr.strip() or 'no answer'}: run again when Slurm answers")
