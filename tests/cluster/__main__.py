"""make test-cluster: bitsafe through a real Slurm on this machine, and everything that can befall it.

What is finished stands in results/cluster/record.json, each case with the commit it was played at; a later call goes
on from there. `--minutes 50` is the time of one call, `--only WORDS` picks cases by name, `--anew` forgets the record.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import whole
from tests.cluster.cases import DATABASE_TOO, play
from tests.cluster.faults import FAULTS, PHASES
from tests.cluster.lab import Lab, install
from tests.cluster.project import ROOT, Project, checkout
from tests.cluster.table import write_table

from bitsafe.files import read_json, write_json

WORK = ROOT / "results/cluster"


def main() -> int:
    options = arguments()
    if reason := install():
        print(f"test-cluster: skipped: {reason}")
        return 0
    file, deadline = WORK / "record.json", time.monotonic() + 60 * options.minutes
    record = read_json(file) if file.exists() and not options.anew else {}
    for name, case in cases().items():
        if name in record or (options.only and options.only not in name):
            continue
        if time.monotonic() > deadline:
            print("test-cluster: time is up; the same command goes on")
            break
        print(f"{name} …", flush=True)
        started = time.monotonic()
        row = case() | {"seconds": round(time.monotonic() - started), "commit": commit()}
        record[name] = row
        write_json(file, record)
        print(f"{name}: {'ok' if row['ok'] else 'FAILED'} in {row['seconds']} s: {row['said']}", flush=True)
    write_table(record, list(cases()))
    return 0 if all(row["ok"] for row in record.values()) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--anew", action="store_true", help="forget what is recorded")
    return parser.parse_args()


def commit() -> str:
    git = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def cases() -> dict[str, Callable[[], dict]]:
    """Every case by its name, in the order in which they are played."""
    found: dict[str, Callable[[], dict]] = {
        "toy: here": lambda: whole.local(WORK / "local"),
        "toy: through Slurm": lambda: in_lab(whole.through_slurm, WORK / "slurm"),
        "toy: one quantizer more": lambda: in_lab(whole.one_quantizer_more, WORK / "more"),
    }
    for fault in FAULTS:
        for phase in PHASES:
            found[f"{fault} / {phase}"] = lambda fault=fault, phase=phase: with_fault(fault, phase)
    found["toy: random faults"] = lambda: in_lab(whole.with_faults, WORK / "faults")
    for fault in DATABASE_TOO:
        found[f"{fault} / generate, slurmdbd"] = lambda fault=fault: with_fault(fault, "generate", database=True)
    return found


def in_lab(play_whole: Callable[[Path, Lab, Project], dict], folder: Path, database: bool = False) -> dict:
    lab = Lab(WORK / "lab", database).up()
    try:
        reference = Project(WORK / ("slurm" if folder.name == "more" else "local"), "toy")
        return play_whole(folder, lab, reference)
    finally:
        lab.down()


def with_fault(fault: str, phase: str, database: bool = False) -> dict:
    lab = Lab(WORK / "lab", database).up()
    try:
        return play(undisturbed(lab), fault, phase, WORK / "case")
    finally:
        lab.down()


def undisturbed(lab: Lab) -> Project:
    """The mini run, finished here without Slurm; each case takes a copy."""
    base = Project(checkout(WORK / "base"), "mini")
    if not (base.run / "report.html").exists() and base.finish():
        raise RuntimeError(f"the undisturbed run failed: {base.log}")
    base.lab = lab
    return base


if __name__ == "__main__":
    sys.exit(main())
