"""python -m tests.bench.recorded_runs RESULTS > data/recorded_runs.csv: what the jobs of finished runs took.

From Snakemake's timings: one line a run, step, model, method, risk and stage (of `generate` and `judge` one a method or
judge), the cell with the highest memory in it, the median of the seconds, the longest, and the highest memory. Memory
is sampled, so of a short job the true peak can be higher.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.matrix.run import Run
from bitsafe.resources.recorded import every_job, read_timing, runs_in

COLUMNS = ("run", "step", "model", "method", "bits", "risk", "stage", "judge", "jobs")
COLUMNS += ("seconds", "cpu_seconds", "max_seconds", "max_rss_mb")


def main(results: Path) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs_in(results):
        try:
            writer.writerows(lines(run))
        except UserError as error:
            print(f"{run.folder}: left out: {error}", file=sys.stderr)


def lines(run: Run) -> Iterator[tuple]:
    groups: dict[tuple, list[tuple]] = {}
    for step, cell, judge in every_job(run):
        if timing := read_timing(run, step, cell, judge):
            groups.setdefault((step, *kind(step, cell, judge)), []).append((timing, cell, judge))
    for (step, *_), found in sorted(groups.items(), key=lambda item: item[0]):
        top, cell, judge = max(found, key=lambda each: each[0].rss_mb)
        seconds = [timing.seconds for timing, _, _ in found]
        cpu = median(timing.cpu_seconds for timing, _, _ in found)
        nouns = (cell.model, cell.method, cell.bits, cell.risk, cell.stage, judge or "")
        yield (run.name, step, *nouns, len(found), median(seconds), round(cpu, 1), max(seconds), top.rss_mb)


def kind(step: str, cell: Cell, judge: str | None) -> tuple:
    baseline = cell == cell.baseline
    if step == "judge":
        return cell.model, baseline, judge
    if step == "generate":
        return cell.model, baseline, cell.method
    return cell.model, cell.method, cell.risk, cell.stage


if __name__ == "__main__":
    main(Path(sys.argv[1]))
