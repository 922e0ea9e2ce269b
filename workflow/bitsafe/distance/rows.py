"""Rows of distance.csv: a row a cell and benchmark, and one for all harmful and one for all benign benchmarks.

Means are over tokens. Intervals are percentile ones of a bootstrap that draws prompts again, by cluster and across
replicates, as everywhere; they are blank where there is one cluster.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitsafe.cells import Cell
from bitsafe.files import read_json, read_jsonl
from bitsafe.matrix.run import Run
from bitsafe.stats.intervals import UNKNOWN, Interval, cluster_totals, resamples
from bitsafe.stats.states import NOT_RUN, failure

Row = dict[str, Any]
DRAWS = 2_000


def distance_rows(run: Run) -> Iterator[Row]:
    """Every cell on every benchmark that is answered in words, harmful and benign ones apart."""
    kinds = {name: run.benchmarks[name].kind for name in run.measured_benchmarks}
    for cell in run.cells:
        for prompts in ("harmful", "benign"):
            names = [name for name, kind in kinds.items() if (kind == "harmful") == (prompts == "harmful")]
            for benchmark in [*names, ""] if names else []:
                found = {"prompts": prompts, "benchmark": benchmark, "decoding": run.measured_decoding}
                yield cell.columns() | found | _measured(run, cell, [benchmark] if benchmark else names)


def _measured(run: Run, cell: Cell, benchmarks: list[str]) -> Row:
    for one in dict.fromkeys([cell, cell.baseline]):
        if reason := why_blank(run, one):
            return {"reason": reason if one == cell else f"nothing to compare with: {reason}"}
    texts, full = texts_of(run, cell, benchmarks), texts_of(run, cell.baseline, benchmarks)
    if not texts:
        return {"n_answers": 0, "n_tokens": 0, "reason": "full precision answered nothing"}
    return columns(texts, run.config.score.confidence) | {"perplexity_full": _perplexity(full)}


def texts_of(run: Run, cell: Cell, benchmarks: list[str]) -> list[dict]:
    """The measured texts of all replicates; a cluster is told apart by its benchmark, and spans the replicates."""
    return [
        text | {"cluster": f"{benchmark} {text['cluster']}"}
        for replicate in range(run.replicates(cell.model))
        for benchmark in benchmarks
        for text in read_jsonl(run.replicate_folder(cell, replicate) / f"distance/{benchmark}.jsonl")
    ]


def columns(texts: list[dict], confidence: float) -> Row:
    """KL(full ‖ cell) in nats a token, share of tokens with the same likeliest one, perplexity; with intervals."""
    clusters = np.array([text["cluster"] for text in texts])
    n = np.array([text["n_tokens"] for text in texts], dtype=float)
    row = {"n_answers": len(texts), "n_tokens": int(n.sum()), "perplexity": _perplexity(texts)}
    for name, key in (("kl", "kl"), ("top1_agreement", "agree"), ("beyond", "beyond")):
        row[name] = sum(text[key] for text in texts) / n.sum()
    for name, key in (("kl", "kl"), ("top1", "agree")):
        low, high = ratio_interval(np.array([text[key] for text in texts], dtype=float), n, clusters, confidence)
        row |= {f"{name}_low": low, f"{name}_high": high}
    return row


def ratio_interval(sums: NDArray, sizes: NDArray, clusters: NDArray, confidence: float) -> Interval:
    """Of Σsums / Σsizes over texts [n], drawn again by cluster."""
    top, bottom = (cluster_totals(values, clusters)[0] for values in (sums, sizes))
    if len(top) < 2:
        return UNKNOWN
    (drawn,) = resamples((len(top),), DRAWS)
    low, high = np.quantile((drawn @ top) / (drawn @ bottom), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _perplexity(texts: list[dict]) -> float:
    with np.errstate(over="ignore"):  # of a model that has come apart: infinite
        return float(np.exp(sum(text["nll"] for text in texts) / sum(text["n_tokens"] for text in texts)))


def why_blank(run: Run, cell: Cell) -> str:
    """Why a cell has no distances; "" if it has."""
    if reason := failure(run, cell):
        return reason
    if run.at(cell, "distance.json").exists():
        return ""
    for replicate in range(run.replicates(cell.model)):
        status = run.replicate_folder(cell, replicate) / "distance" / "status.json"
        if status.exists() and (said := read_json(status)).get("state") == "failed":
            return f"distance: {said.get('reason', '')}"
    return NOT_RUN
