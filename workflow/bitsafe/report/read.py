"""The CSV files of a run (design §4) as typed rows, and as panels: one judge's view of one benchmark, cell by cell."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bitsafe.cells import RISKS, Cell
from bitsafe.errors import UserError
from bitsafe.matrix.run import AA

Row = dict[str, Any]

TEXT = frozenset(
    [
        *("run", "model", "method", "risk", "stage", "benchmark", "decoding", "judge", "judge_a", "judge_b"),
        *("metric", "outcome", "category", "contrast", "test", "state", "baseline_cell", "params"),
        *("reason", "mde_reason", "asr_corrected_reason", "setting"),
    ]
)


csv.field_size_limit(1 << 30)  # a reason may be long, and the limit would hide every other row


def read_csv(path: Path, delimiter: str = ",") -> list[Row]:
    """Rows of a CSV file: numbers as numbers, booleans as booleans, blanks as None; an absent file has no rows."""
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return [
                {key: _value(key, text) for key, text in row.items() if key}
                for row in csv.DictReader(stream, delimiter=delimiter)
            ]
    except (csv.Error, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: not readable as CSV ({error}): delete it and run again") from error


def _value(key: str, text: str | None) -> Any:
    if key in TEXT:
        return text or ""
    if text in ("True", "true", "False", "false"):
        return text in ("True", "true")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    if number != number:  # nan
        return None
    return int(number) if key == "bits" or (number.is_integer() and "." not in text and "e" not in text) else number


def cell_of(row: Row) -> Cell:
    return Cell(row["model"], row["method"], int(row["bits"]), row["risk"], row["stage"])


def key_of(row: Row, *more: str) -> tuple:
    """Cell, benchmark, decoding and judge of a row (and more columns): what two files are joined on."""
    return (cell_of(row), *(row.get(name) for name in ("benchmark", "decoding", "judge", *more)))


def is_one_setting(row: Row) -> bool:
    """Whether a row of scores.csv is of one setting of a grid: too many for a panel each."""
    return bool(row.get("setting")) and row["decoding"].endswith(f"_{row['setting']}")


@dataclass(frozen=True)
class Entry:
    """One cell as one judge saw it on one harmful benchmark, with what stands beside ASR."""

    cell: Cell
    score: Row
    replicates: list[float]
    beside: dict[str, Row]  # metric (over_refusal, utility) -> its row of utility.csv
    contrasts: dict[str, Row]  # total, quantization, repair -> its row of comparisons.csv
    before: "Entry | None" = None  # of a patched cell: the cell it was patched from

    @property
    def measured(self) -> bool:
        return self.score.get("asr") is not None

    @property
    def reason(self) -> str:
        return self.score.get("reason") or ("" if self.measured else "not measured")


@dataclass(frozen=True)
class Panel:
    """All cells of one model under one benchmark, decoding and judge."""

    model: str
    benchmark: str
    decoding: str
    judge: str
    entries: list[Entry]

    @cached_property
    def baseline(self) -> Entry | None:
        """Full precision without fine-tuning."""
        return next((entry for entry in self.entries if entry.cell == entry.cell.baseline), None)

    @cached_property
    def quantized(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.cell.is_patched and entry.cell.method != "full"]

    @cached_property
    def patched(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.cell.is_patched]

    @cached_property
    def noise(self) -> Row:
        """Full precision against itself (the A/A run): what a difference of nothing looks like; {} if not run."""
        return self.baseline.contrasts.get("noise", {}) if self.baseline else {}

    def at(self, cell: Cell) -> Entry | None:
        return self._by_cell.get(cell)

    @cached_property
    def _by_cell(self) -> dict[Cell, Entry]:
        return {entry.cell: entry for entry in self.entries}

    @cached_property
    def mde(self) -> float | None:
        """Largest minimum detectable difference of the contrasts with full precision."""
        return max((e.score["mde"] for e in self.quantized if e.score.get("mde") is not None), default=None)

    @cached_property
    def mde_independent(self) -> float | None:
        """The same, were every answer independent of the others: the best that this many answers can do."""
        column = "mde_independent"
        return max((e.score[column] for e in self.quantized if e.score.get(column) is not None), default=None)


@dataclass(frozen=True)
class Results:
    """What a run's folder says, read once."""

    folder: Path
    scores: list[Row]
    replicates: list[Row]
    utility: list[Row]
    comparisons: list[Row]
    cells: list[Row] = field(default_factory=list)
    agreement: list[Row] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> "Results":
        folder = Path(folder)
        if not (folder / "scores.csv").exists():
            raise UserError(f"{folder / 'scores.csv'}: no such file: the run has not been scored yet")
        names = ("scores", "scores_by_replicate", "utility", "comparisons", "cells", "agreement")
        return cls(folder, *(read_csv(folder / f"{name}.csv") for name in names))

    @cached_property
    def judges(self) -> list[str]:
        return list(dict.fromkeys(row["judge"] for row in self.scores))

    @cached_property
    def panels(self) -> list[Panel]:
        """Every view, the leading judge of a benchmark first: the last of the config's list that scored it."""
        views = [view for view in self._by_view if not view[2].endswith(AA)]
        order = {view: place for place, view in enumerate(views)}
        first = {view[:3]: order[view] for view in reversed(views)}
        return [self._panel(*v) for v in sorted(views, key=lambda view: (first[view[:3]], -order[view]))]

    @cached_property
    def leading(self) -> list[Panel]:
        """One panel a model, benchmark and decoding: that of its leading judge."""
        return list({(p.model, p.benchmark, p.decoding): p for p in reversed(self.panels)}.values())[::-1]

    def others(self, panel: Panel) -> list[Panel]:
        """The same view through the other judges."""
        return [other for other in self._alike.get(_view(panel), []) if other.judge != panel.judge]

    @cached_property
    def _alike(self) -> dict[tuple, list[Panel]]:
        return _grouped((_view(panel), panel) for panel in self.panels)

    def _panel(self, model: str, benchmark: str, decoding: str, judge: str) -> Panel:
        rows, entries = self._by_view[model, benchmark, decoding, judge], {}
        for row in sorted(rows, key=lambda row: cell_of(row).is_patched):
            cell = cell_of(row)
            entries[cell] = self._entry(cell, row, entries.get(cell.quantized) if cell.is_patched else None)
        ordered = sorted(entries.values(), key=_place(list(entries)))
        return Panel(model, benchmark, decoding, judge, ordered)

    def _entry(self, cell: Cell, row: Row, before: Entry | None) -> Entry:
        key = key_of(row)
        replicates = [r["asr"] for r in self._by_replicate.get(key, []) if r.get("asr") is not None]
        mean = f"{row['decoding'].rpartition('_')[0]}_mean"  # beside a grid's worst and any stands its mean
        measured = [(cell, decoding, row["judge"]) for decoding in (mean, row["decoding"])]
        beside = {r["metric"]: r for key in measured for r in self._beside.get(key, [])}
        return Entry(cell, row, replicates, beside, self._contrasts.get(key, {}), before)

    @cached_property
    def _by_view(self) -> dict[tuple, list[Row]]:
        """Rows of scores.csv by model, benchmark, decoding and judge; those of single settings are left out."""
        names = ("model", "benchmark", "decoding", "judge")
        return _grouped((tuple(row[name] for name in names), row) for row in self.scores if not is_one_setting(row))

    @cached_property
    def _by_replicate(self) -> dict[tuple, list[Row]]:
        return _grouped((key_of(row), row) for row in self.replicates)

    @cached_property
    def _beside(self) -> dict[tuple, list[Row]]:
        """Rows of utility.csv by cell, decoding and judge, the leading benchmark of each metric last.

        Over-refusal is led by a benchmark made for it, not by one that also has a utility.
        """
        both = {row["benchmark"] for row in self.utility if row["metric"] == "utility"}
        rows = sorted(
            reversed(self.utility), key=lambda row: row["metric"] == "utility" or row["benchmark"] not in both
        )
        return _grouped(((cell_of(row), row["decoding"], row["judge"]), row) for row in rows)

    @cached_property
    def _contrasts(self) -> dict[tuple, dict[str, Row]]:
        grouped = _grouped((key_of(row), row) for row in self.comparisons if row["metric"] != "score")
        return {key: {row["contrast"]: row for row in rows} for key, rows in grouped.items()}


def _grouped(pairs: Iterable[tuple[tuple, Any]]) -> dict[tuple, list[Any]]:
    groups: dict[tuple, list[Any]] = {}
    for key, one in pairs:
        groups.setdefault(key, []).append(one)
    return groups


def _view(panel: Panel) -> tuple:
    return panel.model, panel.benchmark, panel.decoding


def _place(cells: list[Cell]) -> Callable[[Entry], tuple]:
    """Order of reading: methods as the run lists them, then risk, falling bits, and a cell before its patches."""
    methods, order = list(dict.fromkeys(cell.method for cell in cells)), {cell: k for k, cell in enumerate(cells)}

    def place(entry: Entry) -> tuple:
        cell = entry.cell
        risk = RISKS.index(cell.risk) if cell.risk in RISKS else len(RISKS)
        return methods.index(cell.method), risk, -cell.bits, cell.is_patched, order[cell]

    return place
