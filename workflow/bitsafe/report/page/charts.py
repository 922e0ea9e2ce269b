"""What the charts of the page show: of each panel its cells with their numbers, its contrasts and its noise floor.

The scripts draw these rows and compute nothing of their own: every number here is one of the CSV files.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitsafe.cells import RISKS, Cell
from bitsafe.report.findings import FINDINGS, RISK_NUMERALS, finding, finding_of_contrast, name_of
from bitsafe.report.read import Entry, Panel, Results, Row, cell_of
from bitsafe.report.text import one_line
from bitsafe.report.views import RISK_TITLES

if TYPE_CHECKING:
    from bitsafe.matrix.run import Run

View = dict[str, Any]
CONTRASTS = ("total", "quantization", "repair")
ASR = ("asr", "asr_low", "asr_high", "effective_bits")
METRICS = ("over_refusal", "utility")
PAIRED = ("n_pairs", "n_at_risk", "n_flipped", "changed_share", "delta", "delta_low", "delta_high", "p_holm", "mde")


def chart_data(run: "Run", results: Results) -> View:
    """Every panel, leading ones first within their benchmark; and the distances, if they were measured."""
    controls = frozenset(run.controls)
    return {
        "panels": [panel_data(run, panel, controls) for panel in results.panels],
        "risks": [{"name": risk, "title": RISK_TITLES[risk]} for risk in RISKS],
        "confidence": run.config.score.confidence,
    }


def panel_data(run: "Run", panel: Panel, controls: frozenset[str]) -> View:
    title = f"{panel.model}, {panel.benchmark}, decoding {panel.decoding}, judge {panel.judge}"
    places = {entry.cell: place for place, entry in enumerate(panel.entries)}
    return {
        "title": one_line(title),
        "cells": [cell_data(entry, places, controls) for entry in panel.entries],
        "contrasts": contrast_data(panel.entries, places),
        "noise": noise_data(panel),
        "baseline": places.get(panel.baseline.cell) if panel.baseline else None,
    }


def cell_data(entry: Entry, places: dict, controls: frozenset[str]) -> View:
    """`before`: the place of the cell that a patched one was made from; `reference`: of full precision before its bits.

    A method that fine-tunes is compared with full precision fine-tuned alike, one that calibrates with plain one.
    """
    cell, score = entry.cell, entry.score
    row = "full precision" if cell.method == "full" else cell.method
    row += f", {RISK_NUMERALS.get(cell.risk, cell.risk)}" if cell.risk != "none" else ""
    view = {
        "name": name_of(cell),
        "short": short_name(cell),
        "row": one_line(row + (f" + {cell.stage}" if cell.is_patched else "")),
        **{name: getattr(cell, name) for name in ("method", "bits", "risk", "stage")},
        "patched": cell.is_patched,
        "control": cell.stage in controls,
        "before": places.get(cell.quantized) if cell.is_patched else None,
        "reference": _reference(entry, places),
        "reason": "" if entry.measured else one_line(entry.reason),
        "unresolved": finding(score) == "unresolved",
        "finding": FINDINGS[finding(score)],
    }
    view |= {name: score.get(name) for name in ASR}
    return view | {metric: _beside(entry.beside.get(metric, {})) for metric in METRICS}


def _reference(entry: Entry, places: dict) -> int | None:
    """What the contrast *quantization* compares the cell with."""
    named = entry.contrasts.get("quantization", {}).get("baseline_cell")
    return places.get(Cell.parse(named)) if named else None


def short_name(cell: Cell) -> str:
    """`ste 4-bit III + qresafe`: what fits beside a chart."""
    risk = RISK_NUMERALS.get(cell.risk, cell.risk).removeprefix("risk ") if cell.risk != "none" else ""
    name = "full precision" if cell.method == "full" else f"{cell.method} {cell.bits}-bit"
    return one_line(" ".join(filter(None, [name, risk, f"+ {cell.stage}" if cell.is_patched else ""])))


def _beside(row: Row) -> View | None:
    """None where the metric was not measured."""
    if row.get("value") is None:
        return None
    return {name: row.get(name) for name in ("value", "low", "high", "benchmark")}


def contrast_data(entries: Sequence[Entry], places: dict) -> View:
    """By contrast, its rows: paired counts, the difference with its interval, and what may be claimed of it."""
    found: View = {}
    for name in CONTRASTS:
        rows = [(entry, entry.contrasts[name]) for entry in entries if name in entry.contrasts]
        found[name] = [
            {"cell": places[entry.cell], "finding": finding_of_contrast(entry, name)}
            | {column: row.get(column) for column in PAIRED}
            for entry, row in rows
            if row.get("delta") is not None
        ]
    return found


def noise_data(panel: Panel) -> View | None:
    """Full precision against itself: the share of texts and of verdicts that moved."""
    row = panel.noise
    if not row.get("n_pairs"):
        return None
    moved = (row.get("n_up") or 0) + (row.get("n_down") or 0)
    return {"changed": row.get("changed_share"), "moved": moved / row["n_pairs"]}


def distance_views(rows: Sequence[Row]) -> list[View]:
    """Rows of distance.csv, those of all harmful and of all benign prompts together."""
    return [
        {
            "label": name_of(cell_of(row)),
            "prompts": one_line(row.get("prompts") or ""),
            "reason": one_line(row.get("reason") or "") if row.get("kl") is None else "",
            "kl": _number(row.get("kl"), ".4f"),
            "interval": _bounds(row.get("kl_low"), row.get("kl_high")),
            "agree": _number(row.get("top1_agreement"), ".1%"),
            "perplexity": _number(row.get("perplexity"), ".2f"),
            "perplexity_full": _number(row.get("perplexity_full"), ".2f"),
        }
        for row in rows
        if not row.get("benchmark")
    ]


def _number(value: float | None, shape: str) -> str:
    return "–" if value is None else format(value, shape).replace("%", " %")


def _bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.4f}, {high:.4f}]"
