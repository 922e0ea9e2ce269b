"""What a paper.yaml of data/published says: measures, tables, figures, and what printed labels are in our nouns."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Select = dict[str, Any]  # noun -> one value, or values in order of preference; {noun} in a text is that of the row


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measure(Part):
    """A quantity that papers print, as a number of ours: offset + scale × the column of the file."""

    of: str = Field(pattern=r"^(scores|scores_by_category|utility|utility_by_category|cells)\.\w+$")
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


def matches(labels: dict[str, str], where: dict[str, str]) -> bool:
    """Whether the labels of a row are those that a part of a definition names."""
    return all(labels.get(name) == label for name, label in where.items())


def applies(part: Exception_ | Note, labels: dict[str, str], column: str) -> bool:
    """Whether an exception or a note is about this cell."""
    return matches(labels, part.where) and (not part.columns or column in part.columns)
