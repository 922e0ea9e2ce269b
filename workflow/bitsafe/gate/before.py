"""A policy before anything runs: can so many prompts resolve it? Told of the best case: a refusal is certain."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitsafe.exits import Exit
from bitsafe.gate.asked import Asked, asked_of
from bitsafe.gate.policy import Policy, read_policy
from bitsafe.gate.result import ORDER, Status, worst
from bitsafe.matrix.run import Run
from bitsafe.report.text import listed, one_line, percent, points
from bitsafe.stats.intervals import cluster_interval, effective_n
from bitsafe.stats.power import mde
from bitsafe.steps.make import rows_at_hand

BINARY = ("asr", "over_refusal")  # the exact test speaks of yes or no; utility may be graded


@dataclass(frozen=True)
class Size:
    """The answers that one benchmark gets: the cluster of each."""

    clusters: np.ndarray

    @property
    def n(self) -> int:
        return len(self.clusters)

    @property
    def effective(self) -> int:
        """The n of the worst case, in which a cluster flips as a whole."""
        return int(effective_n(np.unique(self.clusters, return_counts=True)[1]) + 1e-9)


@dataclass(frozen=True)
class Foreseen:
    """One limit on one benchmark, foreseen."""

    asked: Asked
    status: Status
    said: str


def check_policy(run: Run, policy_file: Path) -> Exit:
    """Print what the run could say of the policy, and return the exit code: 0, or 4 or 5 if it must be refused."""
    policy = read_policy(policy_file)
    found = list(foreseen(run, policy))
    status = worst(one.status for one in found)
    refused = "the run can resolve it" if status == Status.PASS else f"refused, {status} (exit code {status.exit:d})"
    print(f"Policy {one_line(policy_file, 300)}: {refused}")
    print(assumptions(run, policy))
    for one in sorted(found, key=lambda one: ORDER.index(one.status)):
        print(f"  {one.status}: {one.asked.axis} {one.asked.limit.key} {shown(one)}: {one.said}")
    if not found:
        print("  not measured: the run has no quantized cell, or the policy selects none of them")
    return status.exit


def assumptions(run: Run, policy: Policy) -> str:
    noise = f"noise that flips {percent(policy.assumed_noise)} of the pairs (assumed_noise)"
    best = "every answer scored, no event in a rate, no flip in a change: the best case"
    return f"Assumed: {best}; {noise}; intervals at {run.config.score.confidence:g}; power 80 % at the same level."


def shown(one: Foreseen) -> str:
    limit = percent(abs(one.asked.limit.most))
    where = " / ".join(part for part in (one.asked.benchmark, one.asked.decoding, one.asked.judge) if part)
    return f"{limit} on {one_line(where) or 'nothing'}"


def foreseen(run: Run, policy: Policy) -> Iterator[Foreseen]:
    """Every different limit × benchmark × decoding × judge once, whatever cells it holds for."""
    first: dict[tuple, Asked] = {}
    for asked in asked_of(run, policy):
        place = (asked.cell.model, asked.benchmark, asked.decoding, asked.judge, asked.missing)
        first.setdefault((asked.axis, asked.limit, asked.min_n, *place), asked)
    sizes: dict[tuple[str, str], Size | None] = {}
    for asked in first.values():
        if asked.missing:
            yield Foreseen(asked, Status.NOT_MEASURED, asked.missing)
            continue
        key = (asked.cell.model, asked.benchmark)
        if key not in sizes:
            sizes[key] = size_of(run, *key)
        yield foresee(run, policy, asked, sizes[key])


def size_of(run: Run, model: str, benchmark: str) -> Size | None:
    """How many answers a benchmark gets, by its rows; None where its files are not at hand."""
    rows = rows_at_hand(run, benchmark)
    answers = run.config.generate.samples * run.replicates(model)
    return None if rows is None else Size(np.repeat([item["cluster"] for item in rows], answers))


def foresee(run: Run, policy: Policy, asked: Asked, size: Size | None) -> Foreseen:
    if size is None:
        remedy = f"`python -m bitsafe benchmarks --name {asked.benchmark} --fetch`"
        return Foreseen(asked, Status.NOT_MEASURED, f"its rows are not at hand, so n is not known: {remedy}")
    reach = best_bound(asked, size, confidence_at(run, asked.decoding))
    most = abs(asked.limit.most)
    said = [f"n {size.n} (worth {size.effective} if clusters answer alike)", f"best bound {percent(reach)}"]
    short = [f"min_n {asked.min_n} is more than n"] if asked.min_n > size.n else []
    beyond = reach < most if asked.limit.key == "min_value" else reach > most
    short += ["no outcome could pass"] if beyond else []
    if asked.limit.quantity == "change" and asked.axis in BINARY:
        alpha = round(1 - run.config.score.confidence, 12)
        least, safe = (mde(n, policy.assumed_noise, alpha) for n in (size.n, size.effective))
        said.append(f"detectable {detectable(least)} points (if clusters answer alike {detectable(safe)})")
        short += ["a difference of that size would not be found"] if least is None or least > most else []
    status = Status.NOT_RESOLVABLE if short else Status.PASS
    return Foreseen(asked, status, ", ".join(said) + (f": {listed(short)}" if short else ""))


def detectable(size: float | None) -> str:
    return "no" if size is None else points(size, signed=False)


def best_bound(asked: Asked, size: Size, confidence: float) -> float:
    """The bound of the best outcome: no event, no flip; for a score that should be high, full marks.

    Without flips the interval of a paired change is that of "no event" in each direction (difference_interval).
    """
    if asked.limit.key == "min_value":
        return cluster_interval(np.ones(size.n), size.clusters, confidence)[0]
    return cluster_interval(np.zeros(size.n), size.clusters, confidence)[1]


def confidence_at(run: Run, decoding: str) -> float:
    """A grid's worst setting carries an interval that holds for all settings at once (stats/grids.py)."""
    level = run.config.score.confidence
    grid = decoding.removesuffix("_worst")
    settings = len(run.settings(grid)) if grid != decoding and grid in run.decodings else 1
    return 1 - (1 - level) / max(1, settings)
