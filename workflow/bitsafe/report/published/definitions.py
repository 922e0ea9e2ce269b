"""What data/published says: the printed cells (CSV) and what each is in our nouns (paper.yaml), checked as it is read."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bitsafe.errors import UserError
from bitsafe.files import sha256_folder
from bitsafe.matrix.tables import ROOT, first_error

FOLDER = ROOT / "data" / "published"
Select = dict[str, Any]  # noun -> one value, or values in order of preference; {noun} in a text is that of the row


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measure(Part):
    """A quantity that papers print, as a number of ours: offset + scale × the column of the file."""

    of: str = Field(pattern=r"^(scores|scores_by_category|utility|cells)\.\w+$")
    interval: list[str] = []
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    over: str | None = Field(None, description="divide a count by this column")
    needs: str | None = Field(None, description="a column of the row without which the number means nothing")
    otherwise: str = Field("", description="the reason where `needs` is blank")
    select: Select = {}
    comparable: bool = Field(True, description="false: the two are different quantities, and no difference is shown")
    note: str = Field("", description="how the printed quantity and ours differ")

    @property
    def file(self) -> str:
        return self.of.partition(".")[0]

    @property
    def column(self) -> str:
        return self.of.partition(".")[2]


class Column(Part):
    """A printed column: a measure, or what follows from other columns, or one that bitsafe has nothing for."""

    heading: str = ""
    measure: str | None = None
    select: Select = {}
    drop: str | None = Field(None, description="the reference row's value in this column, less the row's")
    relative: list[str] = Field([], description="[a, b]: 100 (a - b) / b of two columns")
    mean_drop: list[str] = Field([], description="mean of 100 (reference - row) / reference over measures and models")
    absent: str | None = Field(None, description="why bitsafe has no such number")
    carried: bool = Field(False, description="copied as it is printed: no number to compare")


class Exception_(Part):
    """What differs for some rows (all whose labels equal `where`), in some columns or in all."""

    where: dict[str, str] = {}
    columns: list[str] = []
    select: Select = {}
    absent: str | None = None


class Note(Part):
    """A footnote: marked at the cells that `where` and `columns` name, or under the table as a whole."""

    text: str
    where: dict[str, str] = {}
    columns: list[str] = []


class Table(Part):
    """A printed table: its rows are the lines of its CSV file, named by the columns `rows`."""

    caption: str
    rows: list[str]
    labels: dict[str, dict[str, Select]] = {}
    select: Select = {}
    columns: dict[str, Column]
    reference: dict[str, str] = Field({}, description="labels that make a row the one it is compared with")
    exceptions: list[Exception_] = []
    notes: list[Note] = []


class Plot(Part):
    """A figure: rows of tables as lines, some of their columns as series."""

    caption: str
    from_: list[str] = Field(alias="from")
    where: dict[str, list[str]] = {}
    across: str | None = Field(None, description="label with one axes a value, side by side")
    groups: list[str] = Field([], description="labels that become headings")
    rows: list[str]
    series: list[str]
    axis: str
    limits: list[float] = []
    arrow: bool = Field(False, description="an arrow from the first series to the second")
    gap: bool = Field(False, description="the second series less the first, in figures")
    notes: list[str] = Field([], description="what a reader should know of the figure as a whole")


class Definitions(Part):
    name: str
    source: str
    labels: dict[str, dict[str, Select]] = {}
    measures: dict[str, Measure]
    tables: dict[str, Table]
    plotted: dict[str, Table] = {}
    figures: dict[str, Plot]


@dataclass(frozen=True)
class Printed:
    """A published table as it is printed: the lines that say where it is from, its header, and its cells as text."""

    source: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Paper:
    slug: str
    folder: Path
    says: Definitions

    def printed(self, table: str) -> Printed:
        below = "tables" if table in self.says.tables else "figures"
        return read_printed(self.folder / below / f"{table}.csv")

    def table(self, name: str) -> Table:
        return self.says.tables.get(name) or self.says.plotted[name]

    def labels(self, table: Table) -> dict[str, dict[str, Select]]:
        """Of each printed column that names rows, what its labels are in our nouns; the table's own over the paper's."""
        found = {}
        for column in table.rows:
            general, own = self.says.labels.get(column, {}), table.labels.get(column, {})
            if general or own:
                found[column] = {label: general.get(label, {}) | own.get(label, {}) for label in general | own}
        return found


def read_printed(file: Path) -> Printed:
    """Read a CSV file whose first lines, each behind a #, are its source."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{file}: no such file, and paper.yaml beside it names it") from None
    source = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    rows = list(csv.reader(lines[len(source) :], strict=True))
    if not source or len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        raise UserError(f"{file}: # SOURCE, a header and rows of its length are expected: restore it from the repository")
    return Printed(tuple(source), tuple(rows[0]), tuple(dict(zip(rows[0], row)) for row in rows[1:]))


@cache
def papers(folder: Path = FOLDER) -> tuple[Paper, ...]:
    """Every paper of data/published, read and checked."""
    return tuple(_read(file.parent) for file in sorted(folder.glob("*/paper.yaml")))


def _read(folder: Path) -> Paper:
    file = folder / "paper.yaml"
    try:
        paper = Paper(folder.name, folder, Definitions(**yaml.safe_load(file.read_text(encoding="utf-8"))))
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"{file}: not readable as YAML ({error}): restore it from the repository") from None
    except ValidationError as error:
        raise UserError(f"{file}: {first_error(error, Definitions).lstrip('.')}") from None
    for name in (*paper.says.tables, *paper.says.plotted):
        _check(paper, f"{file}: {name}", paper.table(name), paper.printed(name))
    for name, plot in paper.says.figures.items():
        for table in plot.from_:
            _known(f"{file}: figures.{name}.series", plot.series, paper.table(table).columns)
            _known(f"{file}: figures.{name}.rows", [*plot.groups, *plot.rows], paper.table(table).rows)
    return paper


def _check(paper: Paper, where: str, table: Table, printed: Printed) -> None:
    """Every name in a table's definition is one of its file, and every printed label is one of ours."""
    if printed.header != (*table.rows, *table.columns):
        raise UserError(f"{where}: its rows and columns are not those of its file: {', '.join(printed.header)}")
    for column, labels in paper.labels(table).items():
        _known(f"{where}.labels.{column}", [row[column] for row in printed.rows], labels)
    for column in table.columns.values():
        named = [*column.relative, *([column.drop] if column.drop else [])]
        _known(f"{where}.columns", named, table.columns)
        _known(f"{where}.columns", [*filter(None, [column.measure]), *column.mean_drop], paper.says.measures)
    for part in (*table.exceptions, *table.notes):
        _known(f"{where}: columns of an exception or a note", part.columns, table.columns)
        if not any(_is(row, part.where) for row in printed.rows):
            raise UserError(f"{where}: no row is {part.where}, which an exception or a note names")


def _known(where: str, names: list[str], known: Any) -> None:
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"{where}: {unknown[0]!r} is none of {', '.join(map(str, known))}")


def _is(labels: dict[str, str], where: dict[str, str]) -> bool:
    return all(labels.get(name) == label for name, label in where.items())


def applies(part: Exception_ | Note, labels: dict[str, str], column: str) -> bool:
    """Whether an exception or a note is about this cell."""
    return _is(labels, part.where) and (not part.columns or column in part.columns)


def published() -> str:
    """Hash of everything that is published, for the recipes."""
    return sha256_folder(FOLDER)


# ---- what is written of it ----------------------------------------------------------------------------------------

DOCUMENT = "papers.tex"  # an article of all tables


def table_files() -> list[str]:
    """Names of the files of the tables, below a folder `tables`."""
    stems = [f"{paper.slug}_{name}" for paper in papers() for name in paper.says.tables]
    return [f"{stem}.{kind}" for stem in stems for kind in ("csv", "md", "tex")] + [DOCUMENT]


def figure_files() -> list[str]:
    """Names of the files of the figures, below a folder `figures`."""
    stems = [f"{paper.slug}_{name}" for paper in papers() for name in paper.says.figures]
    return [f"{stem}.{kind}" for stem in stems for kind in ("csv", "pdf", "png")]
