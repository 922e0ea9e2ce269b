"""A run of the papers' models without any model: rows of scores.csv, utility.csv and cells.csv, a cell at a time."""

from pathlib import Path

from bitsafe.report.published.ours import Ours
from bitsafe.stats.csvfile import write_table

HARMFUL = {"benchmark": "advbench_held_out", "decoding": "default", "judge": "keyword"}
SAFE = {"benchmark": "opensafetymini", "decoding": "greedy", "judge": "gemma_safety"}


def nouns(model: str, method: str, bits: int, risk: str = "none", stage: str = "quantized") -> dict:
    return {"run": "r", "model": model, "method": method, "bits": bits, "risk": risk, "stage": stage}


def run_of(folder: Path, **tables: list[dict]) -> Ours:
    """The run whose files hold these rows: run_of(folder, scores=[...], utility=[...])."""
    for name in ("scores", "scores_by_category", "utility", "cells"):
        write_table(folder, name, tables.get(name, []))
    return Ours(folder, "r")
