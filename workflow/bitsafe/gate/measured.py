"""What a run measured, looked up in its tables: the numbers that a policy's limits are held against."""

from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.files import read_json, sha256_file
from bitsafe.gate.asked import Asked
from bitsafe.gate.decide import Measured
from bitsafe.report.read import Row, cell_of, read_csv

TABLES = ("cells", "scores", "utility", "comparisons")


@dataclass(frozen=True)
class Tables:
    """The CSV files of a run, by name."""

    rows: dict[str, list[Row]]

    @classmethod
    def read(cls, folder: Path) -> "Tables":
        if not (Path(folder) / "scores.csv").exists():
            raise UserError(f"{Path(folder) / 'scores.csv'}: no such file: the run has not been scored yet")
        found = cls({name: read_csv(Path(folder) / f"{name}.csv") for name in TABLES})
        try:
            _ = found._by_place, found._absent
        except (KeyError, ValueError, TypeError) as error:
            remedy = f"run `python -m bitsafe score {folder}`"
            raise UserError(f"{folder}: its tables are not what `score` writes ({error!r}): {remedy}") from None
        return found

    def measured(self, asked: Asked) -> Measured:
        """The number of one check; `reason` says why there is none."""
        place = (asked.cell, asked.benchmark, asked.decoding, asked.judge)
        table = "scores" if asked.axis == "asr" else "utility"
        own = self._one(table, place, asked.axis)
        arm = self._one(table, (asked.cell.quantized, *place[1:]), asked.axis)
        if not own:
            return Measured(reason=self._absent.get(asked.cell) or "it has no row in the tables")
        shares = {"unusable": number(own, "unusable_share"), "unusable_before": number(arm, "unusable_share")}
        if asked.limit.quantity == "rate":
            return Measured(**self._rate(own, asked.axis), **shares, reason=reason_of(own))
        row = self._one("comparisons", place, asked.axis)  # of patched cells, too, against full precision
        names = {"value": "delta", "low": "delta_low", "high": "delta_high"}
        found = {name: number(row, column) for name, column in names.items()}
        said = reason_of(row) or reason_of(own) or "it is not compared with full precision"
        return Measured(**found, n=count(row, "n_pairs"), **shares, reason=said)

    @staticmethod
    def _rate(row: Row, axis: str) -> dict[str, Any]:
        columns = ("asr", "asr_low", "asr_high") if axis == "asr" else ("value", "low", "high")
        found = dict(zip(("value", "low", "high"), (number(row, column) for column in columns)))
        if axis != "asr":
            return found | {"n": count(row, "n")}
        scored = [count(row, column) for column in ("n", "n_unscored", "n_ambiguous")]
        return found | {"n": None if None in scored else scored[0] - scored[1] - scored[2]}

    def at(self, table: str, place: tuple) -> list[Row]:
        """The rows of a cell × benchmark × decoding × judge."""
        return self._by_place[table].get(place, [])

    def _one(self, table: str, place: tuple, metric: str) -> Row:
        """The row of one metric (of comparisons.csv that of the contrast *total*); {} if there is none."""
        rows = [row for row in self.at(table, place) if row.get("contrast", "total") == "total"]
        return next((row for row in rows if row.get("metric", "asr") == metric), {})

    @cached_property
    def _by_place(self) -> dict[str, dict[tuple, list[Row]]]:
        found: dict[str, dict[tuple, list[Row]]] = {name: {} for name in TABLES}
        for name in ("scores", "utility", "comparisons"):
            for row in self.rows[name]:
                found[name].setdefault(place_of(row), []).append(row)
        return found

    @cached_property
    def _absent(self) -> dict[Cell, str]:
        return {
            cell_of(row): f"{row['state']}: {row['reason']}" for row in self.rows["cells"] if row["state"] != "done"
        }


def place_of(row: Row) -> tuple:
    return (cell_of(row), row["benchmark"], row["decoding"], row["judge"])


def reason_of(row: Row) -> str:
    return str(row.get("reason") or "")


def number(row: Row, column: str) -> float | None:
    """A finite number, or None: whatever else a cell of a table may hold is no measurement."""
    value = row.get(column)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None


def count(row: Row, column: str) -> int | None:
    value = number(row, column)
    return int(value) if value is not None and value >= 0 and value.is_integer() else None


def check_unchanged(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Hashes of the tables at hand, and what to note of them. UserError when one is not what `score` wrote."""
    files = {f"{name}.csv": folder / f"{name}.csv" for name in TABLES}
    found = {name: sha256_file(path) for name, path in files.items() if path.exists()}
    index = folder / "score.json"
    if not index.exists():
        return found, [
            "score.json is missing (a cell failed, or scoring did): the tables' hashes have nothing to match"
        ]
    told = read_json(index)
    if not isinstance(told, dict) or not isinstance(told.get("files"), dict):
        raise UserError(f"{index}: not an index of tables: run `python -m bitsafe score {folder}`")
    listed = {name: told["files"].get(name) for name in found} | told.get("read", {})
    for name, digest in listed.items():
        if not (folder / name).exists() or sha256_file(folder / name) != digest:
            remedy = f"run `python -m bitsafe score {folder}`"
            raise UserError(f"{folder / name}: not the file that score.json lists: {remedy}")
    return found, [] if "read" in told else ["score.json does not say which verdicts it rests on (an older run)"]
