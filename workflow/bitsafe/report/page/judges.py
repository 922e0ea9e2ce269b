"""Rows of judge_quality.csv for people: how often each judge is right, by labels that people gave."""

from collections.abc import Iterable
from typing import Any

from bitsafe.report.read import Row
from bitsafe.report.text import NONE, interval, one_line, percent


def quality_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """A row a judge, benchmark and outcome; without labels it has a reason and no numbers."""
    return [_quality_row(row) for row in rows]


def _quality_row(row: Row) -> dict[str, Any]:
    known = row.get("sensitivity") is not None or row.get("specificity") is not None
    view = {
        "judge": one_line(row["judge"]),
        "benchmark": one_line(f"{row['model']}, {row['benchmark']}, {row['decoding']}"),
        "outcome": one_line(row["outcome"]),
        "reason": "" if known else one_line(row.get("reason") or "no labels"),
        "labels": NONE if row.get("n_labels") is None else f"{row['n_labels']:,}",
        "source": one_line(row.get("source") or ""),
        "judges": row.get("n_judges") or NONE,
        "alpha": NONE if row.get("alpha") is None else f"{row['alpha']:.2f}",
        "alpha_interval": _alpha_interval(row),
    }
    for name in ("sensitivity", "specificity"):
        view |= {
            name: percent(row.get(name)),
            f"{name}_interval": interval(row.get(f"{name}_low"), row.get(f"{name}_high")),
        }
    return view


def _alpha_interval(row: Row) -> str:
    low, high = row.get("alpha_low"), row.get("alpha_high")
    return "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]".replace("-", "−")
