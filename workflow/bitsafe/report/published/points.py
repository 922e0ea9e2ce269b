"""What a figure of a paper shows: its points, in the order of its rows, and as the rows of its CSV file."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from bitsafe.report.published.build import Built, Cell
from bitsafe.report.published.definitions import Plot
from bitsafe.stats.csvfile import harmless, shown

COLUMNS = ("series", "published", "ours", "low", "high", "difference", "reason", "note")


@dataclass(frozen=True)
class Points:
    """A row of the figure: its labels, its cells by series, and the table that they are from."""

    built: Built
    labels: dict[str, str]
    cells: dict[str, Cell]

    def notes(self, series: str) -> list[str]:
        return [self.built.footnotes[place - 1] for place in self.cells[series].notes]


def points(plot: Plot, tables: Sequence[Built]) -> list[Points]:
    """Rows of the tables that the figure names, group by group as they are first met."""
    found = [
        Points(built, line.labels, {name: line.cells[name] for name in plot.series})
        for built in tables
        for line in built.lines
        if all(line.labels[name] in labels for name, labels in plot.where.items())
    ]
    kept = [row for row in found if any(cell.printed or cell.ours.value is not None for cell in row.cells.values())]
    keys = [tuple(row.labels[name] for name in [*filter(None, [plot.across]), *plot.groups]) for row in kept]
    order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return [row for _, row in sorted(zip(keys, kept), key=lambda pair: order[pair[0]])]


def as_csv(rows: Sequence[Points]) -> str:
    """One row a point, with its labels as they are printed."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*rows[0].labels, *COLUMNS])
    for row in rows:
        for name, cell in row.cells.items():
            ours = cell.ours
            numbers = [shown(value) for value in (ours.value, ours.low, ours.high, cell.difference, ours.reason)]
            note = harmless(" ".join(row.notes(name)))
            table.writerow([*map(harmless, row.labels.values()), name, cell.printed, *numbers, note])
    return text.getvalue()
