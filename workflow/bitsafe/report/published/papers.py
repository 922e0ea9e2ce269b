"""The papers of data/published: their printed cells (CSV) and definitions (paper.yaml), checked as they are read."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bitsafe.errors import UserError
from bitsafe.files import sha256_folder
from bitsafe.matrix.tables import ROOT, first_error
from bitsafe.report.published.definitions import Definitions, Select, Table, matches

FOLDER = ROOT / "data" / "published"


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
        """What the labels of each column that names rows are in our nouns; the table's own over the paper's."""
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
        raise UserError(f"{file}: a source behind #, a header and rows of its length are expected: restore the file")
    return Printed(tuple(source), tuple(rows[0]), tuple(dict(zip(rows[0], row)) for row in rows[1:]))


@cache
def papers(folder: Path = FOLDER) -> tuple[Paper, ...]:
    """Every paper of data/published, read and checked."""
    return tuple(_read(file.parent) for file in sorted(folder.glob("*/paper.yaml")))


def _read(folder: Path) -> Paper:
    file = folder / "paper.yaml"
    try:
        read = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        paper = Paper(folder.name, folder, Definitions(**read))
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(
            f"{file}: not readable as YAML ({getattr(error, 'problem', error)}): restore it from the repository"
        ) from None
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
        if not any(matches(row, part.where) for row in printed.rows):
            raise UserError(f"{where}: no row is {part.where}, which an exception or a note names")


def _known(where: str, names: list[str], known: Any) -> None:
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"{where}: {unknown[0]!r} is none of {', '.join(map(str, known))}")


def published() -> str:
    """Hash of everything that is published, for the recipes."""
    return sha256_folder(FOLDER)


# ---- what is written of it ----------------------------------------------------------------------------------------

DOCUMENT = "papers.tex"  # an article of all tables


def table_files(kinds: Sequence[str] = ("csv", "md", "tex")) -> list[str]:
    """Names of the files of the tables, below a folder `tables`; beside them lies DOCUMENT."""
    stems = [f"{paper.slug}_{name}" for paper in papers() for name in paper.says.tables]
    return [f"{stem}.{kind}" for stem in stems for kind in kinds]


def figure_files(kinds: Sequence[str] = ("csv", "pdf", "png")) -> list[str]:
    """Names of the files of the figures, below a folder `figures`."""
    stems = [f"{paper.slug}_{name}" for paper in papers() for name in paper.says.figures]
    return [f"{stem}.{kind}" for stem in stems for kind in kinds]
