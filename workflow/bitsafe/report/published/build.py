"""A published table rebuilt from data: every printed cell, and beside it the run's own number or why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from bitsafe.report.published.definitions import Column, Measure, Note, Select, Table, applies
from bitsafe.report.published.ours import Ours, Value
from bitsafe.report.published.papers import Paper, Printed

DERIVED = (
    "Ours: changes and drops are of the rates shown, and carry no interval here; comparisons.csv has the paired one."
)


@dataclass(frozen=True)
class Cell:
    printed: str  # as the paper prints it; "" for a blank
    ours: Value
    notes: tuple[int, ...] = ()  # footnotes of this cell, from 1

    @property
    def published(self) -> float | None:
        return float(self.printed) if self.printed else None

    @property
    def difference(self) -> float | None:
        """Ours less the printed value, in its unit."""
        known = self.published is not None and self.ours.value is not None
        return self.ours.value - self.published if known and self.ours.comparable else None


@dataclass(frozen=True)
class Line:
    """A row: its printed labels, its cells by column, and what is carried over as it is printed."""

    labels: dict[str, str]
    cells: dict[str, Cell]
    carried: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """A table as it is shown. `footnotes` are marked at cells, `remarks` are about the whole, `told` about ours."""

    paper: Paper
    name: str
    table: Table
    printed: Printed
    lines: tuple[Line, ...]
    footnotes: tuple[str, ...]
    remarks: tuple[str, ...]
    told: tuple[str, ...] = ()
    run: str | None = None  # the name of the run whose numbers stand beside
    confidence: float | None = None

    @property
    def stem(self) -> str:
        """What its files are called: `qresafe_table03`."""
        return f"{self.paper.slug}_{self.name}"

    @property
    def columns(self) -> dict[str, Column]:
        """The columns that hold numbers."""
        return {name: column for name, column in self.table.columns.items() if not column.carried}

    def digits(self, column: str) -> int:
        """Decimals of a printed column: as many as its longest cell has; one where nothing is printed."""
        return max((_decimals(line.cells[column].printed) for line in self.lines), default=1)

    def unit(self, column: str) -> str:
        measure = self.table.columns[column].measure
        return self.paper.says.measures[measure].unit if measure else ""


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def build(paper: Paper, name: str, ours: Ours | None = None) -> Built:
    """The table `name` of a paper; without `ours`, what is printed alone."""
    table, printed = paper.table(name), paper.printed(name)
    finder = _Finder(paper, table, ours)
    marked = [note for note in table.notes if note.where or note.columns]
    texts = _as_they_come(table, printed, marked)
    lines = tuple(_line(finder, row, marked, texts) for row in printed.rows)
    remarks = tuple(note.text for note in table.notes if note not in marked)
    about = (_told(finder, lines), ours.name, ours.confidence) if ours else ()
    return Built(paper, name, table, printed, lines, tuple(texts), remarks, *about)


def _as_they_come(table: Table, printed: Printed, marked: Sequence[Note]) -> list[str]:
    """The footnotes in the order in which a reader meets their marks."""
    cells = [(row, name) for row in printed.rows for name in table.columns]
    return list(dict.fromkeys(note.text for row, name in cells for note in marked if applies(note, row, name)))


def _line(finder: "_Finder", row: dict[str, str], marked: Sequence[Note], texts: Sequence[str]) -> Line:
    table = finder.table
    labels = {name: row[name] for name in table.rows}
    cells = {}
    for name, column in table.columns.items():
        if not column.carried:
            places = [texts.index(note.text) + 1 for note in marked if applies(note, labels, name)]
            cells[name] = Cell(row[name], finder.value(name, labels), tuple(dict.fromkeys(places)))
    return Line(labels, cells, {name: row[name] for name, column in table.columns.items() if column.carried})


def _told(finder: "_Finder", lines: Sequence[Line]) -> tuple[str, ...]:
    """How our numbers differ by definition from the printed ones, and on what they were measured."""
    columns = finder.table.columns
    used = [name for column in columns.values() for name in [column.measure, *column.mean_drop] if name]
    notes = list(dict.fromkeys(finder.paper.says.measures[name].note for name in used))
    alike: dict[str, list[str]] = {}
    for name, cell in [pair for line in lines for pair in line.cells.items()]:
        if cell.ours.measured:
            alike.setdefault(cell.ours.measured, []).append(columns[name].heading or name)
    derived = [DERIVED] if any(column.drop or column.relative for column in columns.values()) else []
    where = [f"Ours, {', '.join(dict.fromkeys(names))}: {told}." for told, names in alike.items()]
    run = f"Ours: run {finder.ours.name}, with {100 * finder.ours.confidence:g} % intervals. The paper prints none."
    return (run, *filter(None, notes), *derived, *where)


@dataclass(frozen=True)
class _Finder:
    """Our number for each cell of one table."""

    paper: Paper
    table: Table
    ours: Ours | None

    def value(self, name: str, labels: dict[str, str]) -> Value:
        column = self.table.columns[name]
        if self.ours is None:
            return Value()
        absent = [part.absent for part in self.table.exceptions if part.absent and applies(part, labels, name)]
        if absent or column.absent:
            return Value(reason=(absent or [column.absent])[-1])
        if column.drop:
            reference = self.value(column.drop, labels | self.table.reference)
            return _combined(reference, self.value(column.drop, labels), lambda a, b: a - b)
        if column.relative:
            pair = [self.value(other, labels) for other in column.relative]
            return _combined(*pair, lambda a, b: 100 * (a - b) / b if b else None)
        if column.mean_drop:
            return self._mean_drop(name, column, labels)
        return self.ours.value(self._measure(column.measure), self._select(name, labels))

    def _measure(self, name: str) -> Measure:
        return self.paper.says.measures[name]

    def _select(self, name: str, labels: dict[str, str]) -> Select:
        """What the table, the row's labels, the column and the exceptions say, the later over the earlier."""
        known = self.paper.labels(self.table)
        row: Select = dict(self.table.select)
        for column in known:
            row |= known[column][labels[column]]
        select = row | self.table.columns[name].select
        for part in self.table.exceptions:
            if applies(part, labels, name):
                select |= part.select
        return {noun: _filled(value, row) for noun, value in select.items()}

    def _mean_drop(self, name: str, column: Column, labels: dict[str, str]) -> Value:
        """Over all models and measures, or blank: a mean over fewer would be of other things than the paper's."""
        select, reference = self._select(name, labels), self._select(name, labels | self.table.reference)
        models, drops = select.pop("models"), []
        reference.pop("models", None)
        for measure in map(self._measure, column.mean_drop):
            for model in models:
                before, after = (self.ours.value(measure, each | {"model": model}) for each in (reference, select))
                drop = _combined(before, after, lambda a, b: 100 * (a - b) / a if a else None)
                if drop.value is None:
                    return replace(drop, reason=f"{model}: {drop.reason}")
                drops.append(drop)
        return Value(fmean(drop.value for drop in drops))


def _filled(value: object, row: Select) -> object:
    if isinstance(value, list):
        return [_filled(one, row) for one in value]
    return value.format(**row) if isinstance(value, str) else value


def _combined(first: Value, second: Value, of: object) -> Value:
    for one in (first, second):
        if one.value is None:
            return Value(reason=one.reason)
    number = of(first.value, second.value)
    return Value(number, reason="" if number is not None else "the reference is zero")
