"""`python -m bitsafe compare RUN_A RUN_B`: what changed between two runs, in the terminal and, if asked for, as CSV."""

import csv
import io
from pathlib import Path
from typing import Any

from bitsafe.files import write_text
from bitsafe.matrix.plan import aligned
from bitsafe.matrix.run import Run
from bitsafe.questions.changes import Pair, changed_rows, differences, made_otherwise
from bitsafe.report.text import count, interval, listed, one_line, p_value, percent, points
from bitsafe.stats.contrasts import Row
from bitsafe.stats.csvfile import shown

PLACE = ("benchmark", "decoding", "judge", "metric")
HEAD = ("cell", "A", "B", "change [interval]", "up", "down", "pairs", "text changed", "p", "Holm p")
COLUMNS = [*("model", "method", "bits", "risk", "stage"), *PLACE]
COLUMNS += ["n_pairs", "n_dropped", "n_up", "n_down", "changed_share", "baseline_value", "value", "delta", "delta_low"]
COLUMNS += ["delta_high", "delta_best", "delta_worst", "n_clusters", "test", "p", "p_holm", "holm_m", "reason"]
MOST = 40  # differences of the configuration that are listed


def compare(a: Path, b: Path, table: Path | None = None) -> None:
    """Print what changed from run a to run b; write every row to `table` if given."""
    pair = Pair(Run.load(a), Run.load(b))
    rows = list(changed_rows(pair))
    if table:
        write_text(table, as_csv(rows))
    print(f"A: {one_line(a, 400)}\nB: {one_line(b, 400)}\n")
    print("\n".join([*only(pair), *configured(pair), *made(pair)]) + "\n")
    for place in dict.fromkeys(tuple(row[key] for key in PLACE) for row in rows):
        print(panel(place, [row for row in rows if tuple(row[key] for key in PLACE) == place]))
    print(summary(rows))


def only(pair: Pair) -> list[str]:
    lines = [f"{count(len(pair.cells), 'cell')} in both runs"]
    for side, cells in pair.only().items():
        lines += [f"only in {side}: {listed([str(cell) for cell in cells], 12)}"] if cells else []
    return lines


def configured(pair: Pair) -> list[str]:
    found = list(differences(pair))
    if not found:
        return ["configured alike"]
    lines = [f"{count(len(found), 'difference')} in what was configured:"]
    lines += [f"  {one_line(key)}: {one_line(a, 80)} -> {one_line(b, 80)}" for key, a, b in found[:MOST]]
    return [*lines, f"  and {len(found) - MOST} more"] if len(found) > MOST else lines


def made(pair: Pair) -> list[str]:
    other, where = made_otherwise(pair)
    lines = [f"artefacts of {len(other)} of {count(len(pair.cells), 'cell')} differ by their recorded hashes"]
    return lines + [
        f"  {one_line(key)}: {one_line(listed(a))} -> {one_line(listed(b))}" for key, (a, b) in where.items()
    ]


def panel(place: tuple[str, ...], rows: list[Row]) -> str:
    """The rows of one benchmark, decoding, judge and metric; those in which no outcome changed are only counted."""
    benchmark, decoding, judge, metric = map(one_line, place)
    moved = [row for row in rows if "delta" not in row or row["n_up"] + row["n_down"]]
    moved.sort(key=lambda row: (row.get("p_holm", row.get("p", 2)), -abs(row.get("delta") or 0)))
    lines = [f"{metric} on {benchmark}, decoding {decoding}, judge {judge}: {len(rows) - len(moved)} unchanged"]
    table = [line_of(row) for row in moved]
    return "\n".join([*lines, aligned([HEAD, *table])]) if table else f"{lines[0]}\n"


def line_of(row: Row) -> tuple[str, ...]:
    cell = "/".join(str(row[key]) for key in ("model", "method", "bits", "risk", "stage"))
    if "delta" not in row:
        return (one_line(cell), one_line(row["reason"], 80), *[""] * (len(HEAD) - 2))
    change = f"{points(row['delta'])} {interval(row['delta_low'], row['delta_high'])}".strip()
    rates = [percent(row[key]) for key in ("baseline_value", "value")]
    counts = [str(row[key]) for key in ("n_up", "n_down", "n_pairs")]
    tested = [p_value(row["p"]), p_value(row.get("p_holm"))]
    return (one_line(cell), *rates, change, *counts, percent(row["changed_share"]), *tested)


def summary(rows: list[Row]) -> str:
    tested = [row for row in rows if row.get("p_holm") is not None]
    found = [row for row in tested if row["p_holm"] < 0.05]
    blank = sum("delta" not in row for row in rows)
    said = f"{len(found)} of {count(len(tested), 'comparison')} differ at Holm p < 0.05"
    said += f"; {blank} could not be made" if blank else ""
    return f"{said}. Paired by prompt over answers scored in both runs; changes in points, B less A."


def as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([COLUMNS, *([shown(row.get(column)) for column in COLUMNS] for row in rows)])
    return text.getvalue()
