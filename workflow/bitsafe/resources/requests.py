"""What a job asks the scheduler for: its estimate with a margin, or what the user says; more at each attempt."""

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

from bitsafe.cells import Cell
from bitsafe.matrix.run import Run
from bitsafe.resources.coefficients import coefficients
from bitsafe.resources.estimates import LOADING, Estimates
from bitsafe.resources.formulas import Estimate
from bitsafe.resources.rows import Demand

KEYS = tuple(Demand.model_fields)
GROWING = ("mem_mb", "runtime")  # by attempt


class Requests:
    """The requests of the jobs of one run."""

    def __init__(self, run: Run) -> None:
        self.run, self.estimates = run, Estimates(run)
        self._known: dict[tuple, dict[str, int]] = {}

    def of(self, step: str, cell: Cell | None = None, noun: str | None = None, attempt: int = 1) -> dict[str, int]:
        """mem_mb, runtime (minutes), gpu and cpus_per_task. noun: the judge of `judge`, the model of `fetch_model`."""
        key = step, self.estimates.alike(step, cell), noun, attempt
        if key not in self._known:
            self._known[key] = self._grown(self._first(step, cell, noun), attempt)
        return self._known[key]

    def _first(self, step: str, cell: Cell | None, noun: str | None) -> dict[str, int]:
        if step in LOADING:
            found = self._asked(self.estimates.of(step, cell), self.estimates.cores(cell.model))
            own = self.run.model(cell.model).resources
        elif step == "judge":
            found = self._asked(self.estimates.of(step, cell, noun), 1)
            own = self.run.judge(noun).resources
        else:
            single = self.estimates.fetching(noun) if step == "fetch_model" else self.estimates.whole_run(step)
            found, own = self._asked(single, 1), Demand()
        said = self.run.config.resources.steps.get(step, Demand())
        for demand in (own, said):  # the user's word for a step goes before the row's
            found |= demand.model_dump(exclude_none=True)
        return found

    def _asked(self, estimate: Estimate, cores: int) -> dict[str, int]:
        """The estimate with its margins, in round numbers."""
        known = coefficients().requests
        gpus = math.ceil(estimate.gpu_mb * known.gpu_margin / self.run.config.resources.gpu_memory_mb)
        minutes = known.runtime_minutes + known.runtime_margin * estimate.seconds / 60
        return {
            "mem_mb": math.ceil((estimate.mem_mb * known.mem_margin + known.scheduler_mb) / 100) * 100,
            "runtime": math.ceil(minutes / 5) * 5,
            "gpu": gpus,
            "cpus_per_task": cores,
        }

    def _grown(self, first: dict[str, int], attempt: int) -> dict[str, int]:
        """Memory and time of the n-th attempt, n times the first: Snakemake does not say what the job lacked."""
        most = {"mem_mb": self.run.config.resources.mem_mb_limit, "runtime": self.run.config.resources.runtime_limit}
        return first | {key: min(first[key] * attempt, limit) for key, limit in most.items()}


def rule_resources(run: Run, step: str) -> dict[str, Callable | int]:
    """The `resources` of a rule as Snakemake takes them: a number, or a function of wildcards and attempt.

    A number where all jobs of the rule ask for the same: Snakemake calls each function for each job, and works out its
    signature each time unless the function brings it along.
    """
    requests, every = Requests(run), list(jobs_of(run, step))
    found: dict[str, Callable | int] = {}
    for key in KEYS:
        values = {requests.of(step, *nouns)[key] for nouns in every}
        grows = key in GROWING
        found[key] = values.pop() if len(values) == 1 and not grows else _function(requests, step, key)
    slots = {run.judge(name).judge_slots for name in run.judges} if step == "judge" else set()
    if slots:
        found["judge_slots"] = slots.pop() if len(slots) == 1 else signed(lambda wc: run.judge(wc.judge).judge_slots)
    return found


def _function(requests: Requests, step: str, key: str) -> Callable:
    def value(wildcards: Any, attempt: int) -> int:
        return requests.of(step, *nouns_of(step, wildcards), attempt=attempt)[key]

    return signed(value)


def signed(function: Callable) -> Callable:
    """The function with its signature beside it, so that nobody has to work it out again."""
    function.__signature__ = inspect.signature(function)
    return function


def jobs_of(run: Run, step: str) -> Iterator[tuple[Cell | None, str | None]]:
    """The nouns of every job of a rule."""
    if step == "fetch_model":
        yield from ((None, model) for model in run.config.models)
    elif step == "judge":
        yield from ((cell, judge) for cell in run.cells for judge in run.judges)
    elif step in LOADING:
        apart = {"quantize": False, "patch": True}  # the others are made of both kinds of cells
        yield from ((cell, None) for cell in run.cells if apart.get(step, cell.is_patched) == cell.is_patched)
    else:
        yield None, None


def nouns_of(step: str, wildcards: Any) -> tuple[Cell | None, str | None]:
    """The cell of a job, and its judge or model."""
    if step == "fetch_model":
        return None, wildcards.model
    if step not in (*LOADING, "judge"):
        return None, None
    stage = "quantized" if step == "quantize" else wildcards.stage
    cell = Cell(wildcards.model, wildcards.method, int(wildcards.bits), wildcards.risk, stage)
    return cell, wildcards.judge if step == "judge" else None
