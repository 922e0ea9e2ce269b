"""What the tables say of a cell on everything that it was to be measured on, with what is missing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bitsafe.cells import Cell
from bitsafe.gate.asked import known_decodings
from bitsafe.gate.measured import Tables, count, number, reason_of
from bitsafe.matrix.run import Run
from bitsafe.report.read import Row

CHANGE = ("delta", "delta_low", "delta_high", "p", "p_holm", "n_pairs", "n_at_risk", "n_flipped")


@dataclass(frozen=True)
class Numbers:
    """rows: one a benchmark × decoding × judge × metric; missing: what has no number, and why."""

    rows: list[dict[str, Any]]
    missing: list[str]


def numbers_of(run: Run, tables: Tables, cell: Cell, contrasts: tuple[str, ...] = ("total",)) -> Numbers:
    """Every rate and score of a cell with its interval, and its changes by these contrasts."""
    rows, missing = [], []
    for place in places(run, cell):
        found = list(metrics_at(tables, place))
        rows += [
            told | changes(tables, place, told["metric"], contrasts) for told, _ in found if told["value"] is not None
        ]
        if not any(told["value"] is not None for told, _ in found):
            said = next((reason for _, reason in found if reason), "it has no row in the tables")
            missing.append(f"{' / '.join(place[1:])}: {said}")
    return Numbers(rows, missing)


def places(run: Run, cell: Cell) -> Iterator[tuple]:
    for benchmark in run.benchmarks:
        for decoding in known_decodings(run, benchmark):
            for judge in run.judges:
                if run.judge_applies(judge, benchmark):
                    yield cell, benchmark, decoding, judge


def metrics_at(tables: Tables, place: tuple) -> Iterator[tuple[dict[str, Any], str]]:
    """Each metric of one place, and why it has no value."""
    for name, columns in (("scores", ("asr", "asr_low", "asr_high")), ("utility", ("value", "low", "high"))):
        for row in tables.at(name, place):
            told = dict(zip(("benchmark", "decoding", "judge"), place[1:])) | {"metric": row.get("metric") or "asr"}
            told |= dict(zip(("value", "low", "high"), (number(row, column) for column in columns)))
            told |= {"n": count(row, "n"), "unusable_share": number(row, "unusable_share")}
            if name == "scores":
                told |= {"n_unscored": count(row, "n_unscored"), "n_degenerate": count(row, "n_degenerate")}
                told |= {key: row.get(key) for key in ("resolvable", "limits_hold")}
            yield told, reason_of(row)


def changes(tables: Tables, place: tuple, metric: str, contrasts: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Row] = {row["contrast"]: row for row in tables.at("comparisons", place) if row["metric"] == metric}
    told = {}
    for contrast in contrasts:
        if row := found.get(contrast):
            told[contrast] = {"against": row["baseline_cell"], **{key: number(row, key) for key in CHANGE}}
            told[contrast] |= {"reason": reason_of(row)} if told[contrast]["delta"] is None else {}
    return told
