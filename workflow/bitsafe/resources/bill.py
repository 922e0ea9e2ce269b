"""What a run will take before it starts: hours, disk, and the tokens and dollars of judges that are paid."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from bitsafe.cells import Cell
from bitsafe.matrix.data_rows import BenchmarkRow
from bitsafe.matrix.run import Run
from bitsafe.resources.coefficients import coefficients
from bitsafe.resources.formulas import MB, STORED
from bitsafe.resources.recorded import Calibration, Job
from bitsafe.resources.requests import Requests
from bitsafe.resources.work import answers_of


@dataclass
class Hours:
    """Of the jobs of one step."""

    jobs: int = 0
    gpu: float = 0
    core: float = 0
    rests_on: Counter = field(default_factory=Counter)  # method, step, table: see Calibration


@dataclass(frozen=True)
class Asked:
    """What one judge over the network is asked in all. dollars: None where its row names no price."""

    requests: float
    tokens_in: float
    tokens_out: float
    dollars: float | None
    limit: float | None


def hours(requests: Requests, jobs: Iterable[Job], calibration: Calibration) -> dict[str, Hours]:
    """GPU hours and core hours by step; a job that holds GPUs counts by them alone."""
    found: dict[str, Hours] = {}
    for step, cell, judge in jobs:
        line = found.setdefault(step, Hours())
        asked = requests.of(step, cell, judge)
        factor, how = calibration.factor(requests.estimates, step, cell, judge)
        spent = requests.estimates.of(step, cell, judge).seconds * factor / 3600
        line.jobs += 1
        line.rests_on[how] += 1
        if asked["gpu"]:
            line.gpu += spent * asked["gpu"]
        else:
            line.core += spent * asked["cpus_per_task"]
    return found


def disk_gb(requests: Requests) -> dict[str, float]:
    """Gigabytes of the whole run once it is done, by what fills them."""
    run, estimates = requests.run, requests.estimates
    fetched = [name for name in run.config.models if run.model(name).path is None]
    return {
        "models": sum(STORED * estimates.size(name).parameters for name in fetched) / 1e9,
        "artefacts": sum(estimates.artefact_mb(cell) for cell in run.cells) * MB / 1e9,
        "answers and verdicts": sum(estimates.answers_mb(cell) for cell in run.cells) * MB / 1e9,
    }


def asked_over_network(run: Run, jobs: Iterable[Job]) -> dict[str, Asked]:
    """By judge, of the jobs still to run: every answer once, a pair of answers in both orders."""
    cells: dict[str, list[Cell]] = {}
    for step, cell, judge in jobs:
        if step == "judge" and "base_url" in run.judge(judge).endpoint:
            cells.setdefault(judge, []).append(cell)
    return {judge: _asked(run, judge, found) for judge, found in cells.items()}


def _asked(run: Run, judge: str, cells: list[Cell]) -> Asked:
    row = run.judge(judge)
    each, orders = coefficients().of_judge(row.module), 2 if row.pairwise else 1
    count = tokens = 0.0
    for cell in cells:
        if row.pairwise and cell == cell.baseline:
            continue  # its answers are those it would be held against
        answered = run.config.generate.max_new_tokens or run.model(cell.model).max_new_tokens
        for benchmark, decoding in judged(run, judge, cell):
            requests = answers_of(run, benchmark, decoding) * orders * run.replicates(cell.model)
            count += requests
            tokens += requests * (run.benchmarks[benchmark].tokens + orders * answered * coefficients().answers.share)
    tokens_in, tokens_out = tokens + count * each.tokens_in, count * each.tokens_out
    price = row.endpoint.get("price")
    dollars = (tokens_in * price["input"] + tokens_out * price["output"]) / 1e6 if price else None
    return Asked(count, tokens_in, tokens_out, dollars, row.endpoint.get("dollar_limit"))


def judged(run: Run, judge: str, cell: Cell) -> list[tuple[str, str]]:
    """Benchmark and decoding of the answers that a judge reads."""
    names = [name for name in run.benchmarks if run.judge_applies(judge, name)]
    return [(name, decoding) for name in names for decoding in run.decodings_of(cell)]


def untold(benchmarks: dict[str, BenchmarkRow]) -> list[str]:
    """Benchmarks whose rows do not say how many prompts they have."""
    return [name for name, row in benchmarks.items() if not row.file and row.rows is None]
