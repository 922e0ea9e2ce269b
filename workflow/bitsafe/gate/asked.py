"""What a policy asks of a run: every limit × cell × benchmark × decoding × judge, known before anything runs."""

from collections.abc import Iterator
from dataclasses import dataclass

from bitsafe.cells import Cell
from bitsafe.gate.policy import Limit, Policy, RateAxis, ValueAxis
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import suggestion
from bitsafe.register.evidence import governed

KINDS = {"asr": "harmful", "over_refusal": "over_refusal", "utility": "utility"}


@dataclass(frozen=True)
class Asked:
    """One number that the policy asks for, and the limit that it is held to."""

    cell: Cell
    axis: str
    limit: Limit
    min_n: int
    benchmark: str
    decoding: str
    judge: str
    missing: str = ""  # why the run cannot have it, whatever is answered


def gated_cells(run: Run, policy: Policy) -> list[Cell]:
    """The artefacts that the policy selects; never full precision, never a control."""
    return [cell for cell in governed(run) if cell.stage not in run.controls and policy.cells.holds(cell)]


def asked_of(run: Run, policy: Policy) -> Iterator[Asked]:
    """Every limit for every cell, on everything that it is to be measured on."""
    places = {name: list(places_of(run, policy, name, axis)) for name, axis in policy.axes().items()}
    for cell in gated_cells(run, policy):
        for name, axis in policy.axes().items():
            at = axis.at(cell.bits)
            for limit in at.limits():
                for benchmark, decoding, judge, missing in places[name]:
                    yield Asked(cell, name, limit, at.min_n, benchmark, decoding, judge, missing)


def places_of(run: Run, policy: Policy, name: str, axis: RateAxis | ValueAxis) -> Iterator[tuple[str, str, str, str]]:
    """Benchmark, decoding and judge of an axis, and why the run cannot measure it there ("" if it can)."""
    kind = KINDS[name]
    benchmarks = axis.benchmarks or [key for key, row in run.benchmarks.items() if row.kind == kind]
    if not benchmarks:
        yield "", "", "", f"the run has no benchmark of kind {kind}"
    for benchmark in benchmarks:
        known = known_decodings(run, benchmark)
        for decoding in axis.decodings or policy.decodings or default_decodings(run, benchmark):
            for judge in axis.judges or policy.judges:
                missing = why_absent(run, name, benchmark, judge)
                if not missing and decoding not in known:
                    missing = f"the run has no decoding {decoding!r}{suggestion(decoding, known)}"
                yield benchmark, decoding, judge, missing


def why_absent(run: Run, axis: str, benchmark: str, judge: str) -> str:
    if benchmark not in run.benchmarks:
        return f"the run has no benchmark {benchmark!r}{suggestion(benchmark, run.benchmarks)}"
    kinds = {KINDS[axis]} | ({"utility"} if axis == "over_refusal" else set())  # a refusal can be seen there too
    if run.benchmarks[benchmark].kind not in kinds:
        return f"{benchmark} is of kind {run.benchmarks[benchmark].kind}, which says nothing of {axis}"
    if judge not in run.judges:
        return f"the run has no judge {judge!r}{suggestion(judge, run.judges)}"
    return "" if run.judge_applies(judge, benchmark) else f"the judge {judge} does not judge {benchmark}"


def known_decodings(run: Run, benchmark: str) -> list[str]:
    """The names that rows of the tables can have; a grid has no row of its own, but its summaries."""
    harmful = benchmark in run.benchmarks and run.benchmarks[benchmark].kind == "harmful"
    summaries = ("worst", "mean", "any") if harmful else ("mean",)
    names = []
    for name in run.decodings:
        names += [f"{name}_{summary}" for summary in summaries] if run.settings(name) else [name]
    return names


def default_decodings(run: Run, benchmark: str) -> list[str]:
    """Every decoding of the run; of a grid its worst setting, where it has one."""
    known = known_decodings(run, benchmark)
    grids = {f"{name}_worst" if f"{name}_worst" in known else f"{name}_mean": name for name in run.decodings}
    return [name for name in known if name in run.decodings or name in grids]
