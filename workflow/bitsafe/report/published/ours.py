"""A run's own numbers, found by nouns: a value with its interval, or the reason why there is none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from bitsafe.errors import UserError
from bitsafe.report.published.definitions import Measure, Select
from bitsafe.report.read import Row, read_csv
from bitsafe.stats.intervals import wilson

CELL = ("model", "method", "bits", "risk", "stage")
MEASURED = ("benchmark", "decoding", "judge")
BESIDE = {
    "scores": (),
    "scores_by_category": ("category",),
    "utility": ("metric",),
    "utility_by_category": ("metric", "category"),
    "cells": (),
}
DEFAULTS = {"risk": "none", "stage": "quantized"}


@dataclass(frozen=True)
class Value:
    """A number in the paper's unit with the bounds of its interval, or blank with a reason.

    measured: on what, and which of several possible cells it was. comparable: whether it is what the paper prints.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    measured: str = ""
    comparable: bool = True


@dataclass(frozen=True)
class Ours:
    """The files of a scored run; `confidence`: coverage of the intervals in them."""

    folder: Path
    name: str
    confidence: float = 0.95

    @classmethod
    def of(cls, run: Any) -> "Ours":
        """The numbers of a `Run`."""
        if not (run.folder / "scores.csv").exists():
            raise UserError(f"{run.folder / 'scores.csv'}: no such file: the run has not been scored yet")
        return cls(run.folder, run.name, run.config.score.confidence)

    @cached_property
    def _files(self) -> dict[str, dict[tuple, list[Row]]]:
        files: dict[str, dict[tuple, list[Row]]] = {}
        for name in BESIDE:
            cells = files.setdefault(name, {})
            for row in read_csv(self.folder / f"{name}.csv"):
                cells.setdefault(tuple(row[noun] for noun in CELL), []).append(row)
        return files

    @cached_property
    def _cells(self) -> set[tuple]:
        return {cell for cells in self._files.values() for cell in cells}

    def value(self, measure: Measure, select: Select) -> Value:
        """The number that `measure` names at these nouns.

        A noun may have several values, in order of preference; the first that the run has counts, whether or not it
        was measured there, so that a failed cell is blank instead of filled from somewhere else.
        """
        wanted = {noun: _listed(value) for noun, value in (DEFAULTS | measure.select | select).items()}
        if lacking := [noun for noun in CELL if noun not in wanted]:
            raise UserError(f"data/published: {measure.of}: a cell is named without {lacking[0]}: add it to paper.yaml")
        if not (found := [cell for cell in product(*(wanted[noun] for noun in CELL)) if cell in self._cells]):
            return Value(reason=_missing(self._cells, [(noun, wanted[noun]) for noun in CELL]))
        rows = self._files[measure.file].get(found[0], [])
        chosen = [f"{noun} {one}" for noun, one in zip(CELL, found[0]) if len(wanted[noun]) > 1]
        for noun in () if measure.file == "cells" else (*MEASURED, *BESIDE[measure.file]):
            present = {row[noun] for row in rows}
            if not (value := next((value for value in wanted[noun] if value in present), None)):
                return Value(reason=f"not measured: no {noun} {_or(wanted[noun])}")
            rows = [row for row in rows if row[noun] == value]
        return self._number(measure, rows[0] if rows else {}, chosen)

    def _number(self, measure: Measure, row: Row, chosen: list[str]) -> Value:
        if row.get(measure.column) is None:
            return Value(reason=row.get("reason") or "not measured")
        if measure.needs and row.get(measure.needs) is None:
            return Value(reason=measure.otherwise)
        number, bounds = row[measure.column], [row.get(name) for name in measure.interval] or [None, None]
        if measure.over:
            n = row[measure.over]
            independent = row.get("n_clusters") == n  # else Wilson's interval would be too narrow
            bounds = list(wilson(number, n, self.confidence)) if independent else bounds
            number = number / n
        told = [] if measure.file == "cells" else [row["benchmark"], *(f"{noun} {row[noun]}" for noun in MEASURED[1:])]
        numbers = (_in_unit(measure, one) for one in (number, *bounds))
        return Value(*numbers, measured=", ".join(chosen + told), comparable=measure.comparable)


def _in_unit(measure: Measure, number: float | None) -> float | None:
    return None if number is None else measure.offset + measure.scale * number


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _or(values: Sequence[Any]) -> str:
    return " or ".join(map(str, values))


def _missing(cells: Iterable[tuple], wanted: list[tuple[str, list[Any]]]) -> str:
    """The first noun that no cell of the run has, of those that agree in the nouns before it."""
    for place, (noun, values) in enumerate(wanted):
        if not (cells := [cell for cell in cells if cell[place] in values]):
            return f"not run: no {noun} {_or(values)}"
    return "not run"
