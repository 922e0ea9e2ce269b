"""How much work a job is, from the matrix alone: tokens read, trained and decoded, and what it holds at once."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bitsafe.cells import Cell
from bitsafe.generate.plan import MORE, SHARED
from bitsafe.matrix.data_rows import DatasetRow
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.resources.coefficients import coefficients

PROOF = 2 * 8 * 128  # tokens of the proof, source and artefact (artefacts/check.py), on a core
UNTOLD = 500  # rows of a set that does not say how many it has
CUT = 512  # tokens a row of calibration and training has at most on the mean


@dataclass(frozen=True)
class Work:
    """Of one replicate; they follow one another. Tokens go through every weight once."""

    proved: float = 0  # tokens, on a core
    read: float = 0  # tokens, forward
    trained: float = 0  # tokens, forward and backward
    passes: float = 0  # forward passes of the decoding loop
    decoded: float = 0  # tokens of all answers
    batch: float = 0  # tokens of the largest batch that is kept for a backward pass, or scored at once
    cached: float = 0  # tokens in the cache of keys and values at once
    answers: float = 0  # what judges read


def set_size(row: DatasetRow) -> int:
    """Prompts of a set as far as its row tells."""
    count = lines(row.file) if row.file else row.rows or UNTOLD
    count = min(count, row.sample or count) - (row.leave_out or 0)
    return max(1, min(count, row.limit or count))


@lru_cache(maxsize=256)
def lines(file: str) -> int:
    path = ROOT / file
    return sum(1 for line in path.open("rb") if line.strip()) if path.exists() else UNTOLD


def quantizing(run: Run, cell: Cell) -> Work:
    """Calibrating reads `samples` rows; tuning takes `steps` batches of rows, and those of a distillation before it."""
    row, params = run.method(cell), run.params(cell)
    found = run.risk_set(cell)
    tokens = min(found[1].tokens, CUT) if found else CUT
    batch = params.get("batch_size", 16)
    tuned = params.get("steps", 0) * batch * tokens if found and row.risk_use == "finetune" else 0
    distilled = params.get("distill_steps", 0) * batch * params.get("tokens", 0)
    samples = params.get("samples", 0) if found or distilled else 0
    at_once = batch * tokens if tuned else batch * params.get("tokens", 0) if distilled else min(samples, 8) * tokens
    return Work(proved=PROOF, read=2 * samples * tokens, trained=tuned + distilled, batch=at_once)


def patching(run: Run, cell: Cell) -> Work:
    """Both models answer the prompts; then masks are scored and steps taken, once a learning rate."""
    params, model = run.params(cell), run.model(cell.model)
    _name, found = run.patch_set(cell)
    prompts = min(params.get("prompts") or set_size(found), set_size(found)) + (params.get("validation") or 0)
    new, size = params.get("max_new_tokens", 64), params.get("batch_size", 8)
    length = found.tokens + new
    steps, rates = _steps(params, prompts, size), len(params["lr"]) if isinstance(params.get("lr"), list) else 1
    refreshed = math.ceil(steps / max(1, params.get("refresh_every") or steps or 1)) if steps else 1
    scored = refreshed * (params.get("snip_examples") or (prompts if "criterion" in params else 0))
    both = 2 if "beta" in params else 1  # preferred and dispreferred
    return Work(
        proved=PROOF,
        read=2 * prompts * found.tokens + both * prompts * length,
        trained=rates * (steps * size * both + scored) * length,
        passes=2 * math.ceil(prompts / model.batch_size) * new,
        decoded=2 * prompts * new,
        batch=size * both * length,
        cached=min(prompts, model.batch_size) * length,
    )


def _steps(params: dict[str, Any], prompts: int, size: int) -> float:
    if "epochs_high" in params:  # block by block: each token goes through every weight once an epoch
        return params["epochs_high"] * math.ceil(prompts / size)
    return params.get("steps", 0)


def answers_of(run: Run, benchmark: str, decoding: str) -> int:
    """Answers of one replicate to one benchmark under one decoding."""
    if run.benchmarks[benchmark].asks:
        return set_size(run.benchmarks[benchmark])
    return set_size(run.benchmarks[benchmark]) * run.config.generate.samples * (len(run.settings(decoding)) or 1)


def measuring(run: Run, cell: Cell) -> Work:
    """Full precision's answers, read once a benchmark."""
    tokens = run.config.distance.tokens * len(run.measured_benchmarks)
    return Work(read=tokens, batch=min(tokens, 2048))


def generating(run: Run, cell: Cell) -> Work:
    """Every benchmark under every decoding of the cell; questions with options are read only."""
    row, share = run.model(cell.model), coefficients().answers.share
    new = run.config.generate.max_new_tokens or row.max_new_tokens
    size = run.config.generate.batch_size or row.batch_size
    read = passes = decoded = longest = count = 0.0
    for decoding in run.decodings_of(cell):
        entries = size * (SHARED if run.settings(decoding) else 1)
        for name, benchmark in run.benchmarks.items():
            answers = answers_of(run, name, decoding)
            read += set_size(benchmark) * benchmark.tokens
            longest, count = max(longest, benchmark.tokens), count + answers
            if not benchmark.asks:
                passes += math.ceil(answers / entries) * new
                decoded += answers * new * share
    cached = size * (longest + (new if decoded else 0))
    return Work(read=read, passes=passes, decoded=decoded, batch=MORE * size, cached=cached, answers=count)


def judging(run: Run, cell: Cell, judge: str) -> Work:
    """The answers of one replicate that a judge reads."""
    names = [name for name in run.benchmarks if run.judge_applies(judge, name)]
    return Work(answers=sum(answers_of(run, name, each) for each in run.decodings_of(cell) for name in names))


class Workload:
    """The work of every job of a run; what is the same for many cells is found once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._known: dict[tuple, Work] = {}

    def of(self, step: str, cell: Cell, judge: str | None = None) -> Work:
        if step in ("quantize", "patch"):
            return (quantizing if step == "quantize" else patching)(self.run, cell)
        key = step, cell.model, cell == cell.baseline, judge
        if key not in self._known:
            nouns = (cell,) if judge is None else (cell, judge)
            self._known[key] = {"generate": generating, "distance": measuring, "judge": judging}[step](self.run, *nouns)
        return self._known[key]
