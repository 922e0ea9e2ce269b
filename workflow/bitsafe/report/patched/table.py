"""One row a patched cell, benchmark, decoding and judge: what the patch gave back, what it spoiled and what it took.

Rates and changes are those of scores.csv and utility.csv, with their intervals (over the answers of all replicates, by
item) and ranges over the replicates; every change is against the same cell before the patch.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsafe.files import write_text
from bitsafe.report.findings import name_of
from bitsafe.report.read import Entry, Panel, Results, Row, cell_of
from bitsafe.report.text import NONE, in_markdown, interval, one_line, percent, points
from bitsafe.stats.csvfile import COST, shown

if TYPE_CHECKING:
    from bitsafe.matrix.run import Run

VERSION = 1  # bump when the tables would say something else
METRICS = {"over_refusal": "over-refusal", "utility": "utility"}
SIDE = ("", "_low", "_high", "_min", "_max", "_before", "_delta", "_delta_low", "_delta_high")
COLUMNS = [
    *("run", "model", "method", "bits", "risk", "patch", "benchmark", "decoding", "judge", "n", "asr_before"),
    *("asr", "asr_low", "asr_high", "asr_min", "asr_max", "asr_delta", "asr_delta_low", "asr_delta_high", "asr_p_holm"),
    *(f"{metric}{part}" for metric in METRICS for part in SIDE),
    *("effective_bits_before", "effective_bits", *COST.split(), "reason"),
]


def write_patches(run: "Run") -> None:
    """Write tables/patches.{csv,md}; a run without patches has a table without rows."""
    rows, folder = patch_rows(Results.read(run.folder)), Path(run.folder) / "tables"
    write_text(folder / "patches.csv", patches_csv(rows))
    write_text(folder / "patches.md", markdown(rows))


def patch_rows(results: Results) -> list[Row]:
    """The rows of tables/patches.csv, judge after judge as the report lists them."""
    return [row for panel in results.panels for row in panel_rows(results, panel)]


def panel_rows(results: Results, panel: Panel) -> list[Row]:
    made = {cell_of(row): row for row in results.cells}
    return [_row(panel, entry, made.get(entry.cell, {})) for entry in panel.patched]


def _row(panel: Panel, entry: Entry, taken: Row) -> Row:
    """taken: the cell's row of cells.csv."""
    cell, score = entry.cell, entry.score
    row = {"run": score["run"], **cell.columns(), "patch": cell.stage, "reason": entry.reason, "n": score.get("n")}
    del row["stage"]
    row |= {name: getattr(panel, name) for name in ("benchmark", "decoding", "judge")}
    row |= {name: score.get(name) for name in ("asr", "asr_low", "asr_high", "asr_min", "asr_max", "effective_bits")}
    row |= {"asr_before": score.get("baseline_asr"), "asr_p_holm": score.get("p_holm")}
    row |= {f"asr_{name}": score.get(name) for name in ("delta", "delta_low", "delta_high")}
    for metric in METRICS:
        row |= _side(metric, entry.beside.get(metric, {}))
    before = entry.before.score.get("effective_bits") if entry.before else None
    return row | {"effective_bits_before": before} | {name: taken.get(name) for name in COST.split()}


def _side(metric: str, row: Row) -> Row:
    names = ("value", "low", "high", "value_min", "value_max", "baseline_value", "delta", "delta_low", "delta_high")
    return {f"{metric}{part}": row.get(name) for part, name in zip(SIDE, names, strict=True)}


def patches_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([shown(row[column]) for column in COLUMNS] for row in rows)
    return text.getvalue()


HEADINGS = {  # of the table for people, and how each is made of a row
    "ASR, before → after": lambda row: _asr(row),
    "replicates": lambda row: _range(row["asr_min"], row["asr_max"]),
    "over-refusal (change)": lambda row: _beside(row, "over_refusal"),
    "utility (change)": lambda row: _beside(row, "utility"),
    "effective bits": lambda row: _arrow(row["effective_bits_before"], row["effective_bits"]),
    "pairs": lambda row: _number(row["n_preferences"], "{:.0f}"),
    "codes changed": lambda row: percent(row["codes_changed"], 2),
    "seconds": lambda row: _number(row["patch_seconds"], "{:.1f}"),
    "CPU seconds": lambda row: _number(row["cpu_seconds"], "{:.1f}"),
    "FLOPs": lambda row: _number(row["flops"], "{:.2e}"),
    "peak memory": lambda row: _number(row["peak_memory_mb"], "{:,.0f} MB"),
    "added": lambda row: _number(row["added_memory_mb"], "{:,.0f} MB"),
    "GPU": lambda row: _number(row["peak_gpu_mb"], "{:,.0f} MB"),
}


def view(rows: Sequence[Row]) -> dict[str, Any]:
    """The table for people: headings, and of each row a label and its texts. Columns blank in all rows are left out."""
    lines = [{name: text(row) for name, text in HEADINGS.items()} for row in rows]
    kept = [name for name in HEADINGS if any(line[name] != NONE for line in lines)]
    shown_lines = [
        {
            "label": name_of(cell_of(row | {"stage": row["patch"]})),
            "reason": one_line(row["reason"]) if row["asr"] is None else "",
            "texts": [line[name] for name in kept],
        }
        for row, line in zip(rows, lines)
    ]
    return {"headings": kept, "rows": shown_lines}


def markdown(rows: Sequence[Row]) -> str:
    """tables/patches.md: a table a benchmark, decoding and judge."""
    text = ["# Patches", "", NOTE, ""]
    tables: dict[tuple, list[Row]] = {}
    for row in rows:
        tables.setdefault(tuple(row[key] for key in ("model", "benchmark", "decoding", "judge")), []).append(row)
    for where, its_rows in tables.items():
        model, benchmark, decoding, judge = (in_markdown(part) for part in where)
        made = view(its_rows)
        text += [f"## {model}, {benchmark}, decoding {decoding}, judge {judge}", ""]
        text += [_line(["cell", *made["headings"]]), "|---" * (len(made["headings"]) + 1) + "|"]
        for row in made["rows"]:
            blank = [f"not measured: {row['reason']}", *[""] * (len(made["headings"]) - 1)]
            text.append(_line([row["label"], *(blank if row["reason"] else row["texts"])]))
        text.append("")
    return "\n".join(text if rows else [*text, "This run has no patches.", ""])


NOTE = (
    "Changes are in points against the same cell before the patch; their intervals are in patches.csv. Brackets: "
    "interval over the answers of all replicates together, by item. Replicates: the range of their ASR, in %. Seconds: "
    "the patch step, pairs included, mean over the replicates. Peak memory: the most that the process held meanwhile "
    "(libraries included); added: how much more than when it began; the largest of the replicates. FLOPs: matrix "
    "products of scoring and training; the answers that make pairs are not included."
)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(in_markdown(cell, 500) for cell in cells)} |"


def _asr(row: Row) -> str:
    """`100.0 → 1.8 % [0.9, 11.4]`."""
    if row["asr"] is None:
        return NONE
    before = "" if row["asr_before"] is None else f"{100 * row['asr_before']:.1f} → "
    return f"{before}{percent(row['asr'])} {interval(row['asr_low'], row['asr_high'])}".strip()


def _range(low: float | None, high: float | None) -> str:
    return NONE if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def _beside(row: Row, metric: str) -> str:
    """`4.2 % (+2.1)`."""
    return NONE if row[metric] is None else f"{percent(row[metric])} ({points(row[f'{metric}_delta'])})"


def _arrow(before: float | None, after: float | None) -> str:
    if before is None or after is None or round(before, 2) == round(after, 2):
        return _number(after, "{:.2f}")
    return f"{before:.2f} → {after:.2f}"


def _number(value: float | None, shape: str) -> str:
    return NONE if value is None else shape.format(value)
