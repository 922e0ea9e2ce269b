"""What jobs took, from Snakemake's timings of the runs in a results folder, and how far estimates are off by them."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.files import read_json
from bitsafe.matrix.run import Run
from bitsafe.resources.estimates import Estimates

Job = tuple[str, Cell, str | None]  # step, cell, judge


@dataclass(frozen=True)
class Timing:
    seconds: float
    cpu_seconds: float
    rss_mb: float  # the highest that was sampled


def every_job(run: Run) -> Iterator[Job]:
    """The jobs of the matrix: making, answering, measuring and judging each cell."""
    for cell in run.cells:
        yield "patch" if cell.is_patched else "quantize", cell, None
        yield "generate", cell, None
        if run.config.distance.tokens:
            yield "distance", cell, None
        yield from (("judge", cell, judge) for judge in run.judges)


def read_timing(run: Run, step: str, cell: Cell, judge: str | None) -> Timing | None:
    """What one job took the last time; None if it never ran, so briefly that nothing was sampled, or made nothing."""
    nouns = [cell.model, cell.method, f"{cell.bits}bit", cell.risk]
    nouns += [] if step == "quantize" else [cell.stage]
    nouns += [judge] if judge else []
    file = run.folder / "timings" / step / f"{'.'.join(nouns)}.tsv"
    try:
        with file.open(encoding="utf-8") as stream:
            row = next(csv.DictReader(stream, delimiter="\t"))
        timing = Timing(float(row["s"]), float(row["cpu_time"]), float(row["max_rss"]))
    except (OSError, StopIteration, ValueError, KeyError):
        return None
    return timing if timing.seconds >= 0.5 * seconds_of_making(run, step, cell) else None


def seconds_of_making(run: Run, step: str, cell: Cell) -> float:
    """What the artefacts of a cell took by their manifests; more than the job took where they came from a store."""
    if step not in ("quantize", "patch"):
        return 0.0
    manifests = [run.replicate_folder(cell, k) / "manifest.json" for k in range(run.replicates(cell.model))]
    return sum(read_json(file).get("seconds", 0.0) for file in manifests if file.exists())


def runs_in(results: Path) -> Iterator[Run]:
    """Every run of a results folder that can still be read."""
    for file in sorted(results.glob("*/config.json")):
        try:
            run = Run.load(file.parent)
            _ = run.cells, run.benchmarks
            yield run
        except UserError:  # a row of its tables is gone since
            continue


class Calibration:
    """The ratio of recorded to estimated seconds: of the same model and method, else of the same step and device."""

    def __init__(self, runs: list[Run]) -> None:
        found: dict[tuple, list[float]] = {}
        self.recorded = 0
        for run in runs:
            estimates = Estimates(run)
            for job in every_job(run):
                if timing := read_timing(run, *job):
                    self.recorded += 1
                    for key in keys(estimates, *job):
                        found.setdefault(key, []).append(timing.seconds / estimates.of(*job).seconds)
        self.factors = {key: median(ratios) for key, ratios in found.items()}

    def factor(self, estimates: Estimates, step: str, cell: Cell, judge: str | None) -> tuple[float, str]:
        """(factor, what it rests on: `method`, `step` or `table`)."""
        for key, how in zip(keys(estimates, step, cell, judge), ("method", "step")):
            if key in self.factors:
                return self.factors[key], how
        return 1.0, "table"


def keys(estimates: Estimates, step: str, cell: Cell, judge: str | None) -> tuple[tuple, tuple]:
    """What jobs of like cost share, the narrow first. A core's time says nothing of a GPU's."""
    run, device = estimates.run, "gpu" if estimates.of(step, cell, judge).gpu_mb else "cpu"
    if step == "judge":
        kind: tuple = (run.judge(judge).module,)
    elif step in ("quantize", "patch"):
        kind = run.method(cell).module, run.patch(cell).module if cell.is_patched else None
    else:
        kind = ()
    wide = kind if step == "judge" else ()  # a list of phrases says nothing of a language model
    return (step, device, cell.model, *kind), (step, device, *wide)
