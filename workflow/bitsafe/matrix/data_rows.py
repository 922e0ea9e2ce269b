"""Rows of the tables benchmarks.yaml and datasets.yaml: where prompts come from, and which of them are kept."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bitsafe.cells import RISKS
from bitsafe.errors import UserError

Risk = Literal["none", "benign", "obedient", "harmful"]
Kind = Literal["harmful", "over_refusal", "utility"]
Format = Literal["csv", "csv_headless", "jsonl", "json", "parquet", "txt"]
FILES = ("parts", "beside")  # keys of a row that hold files by name: a variant changes a file key by key


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRow(Row):
    """One published file: a pinned URL (DATA_DIR is looked into first)."""

    url: str
    sha256: str | list[str] | None = Field(None, description="as of the row itself")
    names: list[str] = Field([], description="as of the row itself")
    format: Format = Field("csv", description="as of the row itself")


class DatasetRow(Row):
    """Where rows come from: a file of this repository, or a pinned URL (DATA_DIR is looked into first)."""

    summary: str = ""
    version: int = 1
    licence: str
    revision: str = ""
    split: str = Field("", description="which part of the published set this is")
    file: str | None = None
    url: str | None = None
    sha256: str | list[str] | None = Field(
        None,
        description="of the file; several where copies differ harmlessly; `git:` and the blob id where we never had "
        "the bytes; null: not pinned, so not used",
    )
    names: list[str] = Field([], description="names that the file also goes by in DATA_DIR")
    format: Format = "jsonl"
    parts: dict[str, FileRow] | None = Field(
        None, description="a set published as several files, by category; in place of `url`"
    )
    beside: dict[str, FileRow] | None = Field(None, description="further files that the `task` reads")
    task: str | None = Field(None, description="module whose `rows` reads the files; columns are mapped if absent")
    columns: dict[str, str] = Field(
        {}, description="our column: theirs (prompt, target, context, category, id, cluster; or messages)"
    )
    where: dict[str, list[str]] = Field({}, description="keep the rows whose column holds one of these values")
    sample: int | None = Field(None, ge=1, description="keep so many rows, drawn by hash: always the same ones")
    leave_out: int | None = Field(None, ge=1, description="keep the rows that a `sample` of this size leaves")
    per_category: int | None = Field(None, description="keep the first so many rows of each category")
    duplicates: int | None = Field(None, description="so many rows repeat another's prompt; they share its cluster")
    limit: int | None = Field(None, description="use so many rows")
    rows: int | None = Field(
        None, ge=1, description="prompts in its files after `where` and `per_category`: for the plan"
    )
    tokens: int = Field(60, ge=1, description="tokens of one prompt, about: for the plan and the resources of jobs")
    risk: Literal["benign", "obedient", "harmful"] | None = Field(
        None, description="what a set to learn from holds; required of a file of your own"
    )
    provenance: str = Field("", description="where the rows are from; required of a file of your own")

    def files(self) -> dict[str, FileRow]:
        """The published files of the row by what they are called in messages; {} of one that ships with us."""
        if self.file:
            return {}
        keys = ("url", "sha256", "names", "format")
        main = {"": FileRow(**{key: getattr(self, key) for key in keys})} if self.url else {}
        named = {"parts": self.parts or {}, "beside": self.beside or {}}
        return main | {f"{kind}.{key}": file for kind, found in named.items() for key, file in found.items()}

    def unpinned(self) -> list[str]:
        """Where in the row a sha256 is missing, as its keys."""
        return [f"{key}.sha256".lstrip(".") for key, file in self.files().items() if not file.sha256]


class BenchmarkRow(DatasetRow):
    """Prompts that every cell answers."""

    kind: Kind
    reference: bool = Field(False, description="rows carry reference facts, which the judge `reference` needs")
    asks: Literal["choice"] | None = Field(
        None, description="choice: questions with options, answered by the likeliest letter; only such judges read them"
    )


def check_declared(where: str, row: DatasetRow) -> None:
    """A file of the user's own says what it holds and where it is from."""
    if row.risk is None:
        raise UserError(f"{where}.risk: missing: say what the file holds: {', '.join(RISKS[1:])}")
    if not row.provenance.strip():
        raise UserError(f"{where}.provenance: missing: say in a few words where its rows are from")
