"""Sweeps: patches of a cell that differ in one setting, found by their parameters, and the rows that a figure draws."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsafe.cells import Cell
from bitsafe.patches.base import Settings
from bitsafe.report.published.papers import FOLDER, read_printed
from bitsafe.report.read import Entry, Panel, Row
from bitsafe.stats.csvfile import shown

if TYPE_CHECKING:
    from bitsafe.matrix.run import Run

DEFAULTS = asdict(Settings())
PUBLISHED = {"tau": ("bitsafe.patches.qresafe", FOLDER / "qresafe" / "tables" / "table05.csv")}
MEASURED = ("asr", "asr_low", "asr_high", "asr_min", "asr_max")
BESIDE = ("value", "low", "high", "baseline_value", "delta", "delta_low", "delta_high")
COLUMNS = [
    *("setting", "value", "series", "model", "method", "bits", "risk", "stage", "benchmark", "decoding", "judge"),
    *MEASURED,
    *("asr_replicates", "asr_before"),
    *(f"{metric}_{name}" for metric in ("over_refusal", "utility") for name in BESIDE),
    "reason",
]


@dataclass(frozen=True)
class Sweep:
    """Patches of one quantized cell by one module that differ in `setting` alone; points: (value, cell), in order."""

    setting: str
    module: str
    points: tuple[tuple[Any, Cell], ...]

    @property
    def quantized(self) -> Cell:
        return self.points[0][1].quantized

    @property
    def name(self) -> str:
        """What the names of its patches begin with (`qresafe`), else the module's name."""
        first, last = min(stages := [cell.stage for _, cell in self.points]), max(stages)  # they differ soonest
        length = next((k for k, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
        stem = first[:length] if first[:length] in stages else first[:length].rpartition("_")[0]
        return stem or self.module.rpartition(".")[2]


def sweeps(run: "Run") -> list[Sweep]:
    """All of a run, setting after setting as its patches first differ in them. It reads no results."""
    alike: dict[tuple, list[tuple[Cell, dict]]] = {}
    for cell in run.cells:
        if cell.is_patched:
            alike.setdefault((cell.quantized, run.patch(cell).module), []).append((cell, run.params(cell)))
    found = [sweep for (_, module), patches in alike.items() for sweep in _of_one_module(module, patches)]
    order = list(dict.fromkeys(sweep.setting for sweep in found))
    return sorted(found, key=lambda sweep: order.index(sweep.setting))


def swept(run: "Run") -> list[str]:
    """The settings that a run varies: one figure each."""
    return list(dict.fromkeys(sweep.setting for sweep in sweeps(run)))


def _of_one_module(module: str, patches: list[tuple[Cell, dict]]) -> Iterator[Sweep]:
    written = [{name: _same(value) for name, value in (DEFAULTS | params).items()} for _, params in patches]
    for setting in dict.fromkeys(name for _, params in patches for name in params):
        groups: dict[frozenset, dict[str, tuple[Any, Cell]]] = {}
        for (cell, params), known in zip(patches, written):
            others = frozenset(item for item in known.items() if item[0] != setting)
            value = params.get(setting, DEFAULTS.get(setting))
            groups.setdefault(others, {}).setdefault(known.get(setting, "null"), (value, cell))
        for points in groups.values():
            if len(points) > 1:
                yield Sweep(setting, module, tuple(sorted(points.values(), key=_order)))


def _same(value: Any) -> str:
    """Equal for equal parameters, whether 1 is written so or 1.0."""
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)


def _order(point: tuple[Any, Cell]) -> tuple:
    """Numbers by size, then names as the run lists them; no number at all (prompts: all of them) comes last."""
    value = point[0]
    return (0, value) if isinstance(value, int | float) else (2 if value is None else 1, 0)


def words(value: Any) -> str:
    return "all" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def sweep_rows(found: Iterable[Sweep], panel: Panel) -> list[Row]:
    """What a figure shows of one panel, a row a point; a cell that is not measured has its reason and no numbers."""
    return [_row(sweep, value, cell, panel) for sweep in found for value, cell in sweep.points]


def _row(sweep: Sweep, value: Any, cell: Cell, panel: Panel) -> Row:
    where = {name: getattr(panel, name) for name in ("benchmark", "decoding", "judge")}
    row = {"setting": sweep.setting, "value": words(value), "series": sweep.name, **cell.columns(), **where}
    entry = panel.at(cell)
    return row | ({"reason": "not part of the scores"} if entry is None else _numbers(entry))


def _numbers(entry: Entry) -> Row:
    row = {name: entry.score.get(name) for name in MEASURED}
    row |= {"asr_replicates": " ".join(f"{rate:.6g}" for rate in entry.replicates)}
    row |= {"asr_before": entry.score.get("baseline_asr"), "reason": entry.reason}
    for metric in ("over_refusal", "utility"):
        beside = entry.beside.get(metric, {})
        row |= {f"{metric}_{name}": beside.get(name) for name in BESIDE}
    return row


def published_rows(setting: str, found: Iterable[Sweep]) -> list[Row]:
    """The paper's points for a setting that it varied too; [] where it did not, or the sweep is of another patch."""
    module, file = PUBLISHED.get(setting, ("", Path()))
    if module not in [sweep.module for sweep in found]:
        return []
    rows = sorted(read_printed(file).rows, key=lambda row: float(row[setting]))
    about = {"setting": setting, "series": "published (Q-resafe, Table 5)", "model": "llama-2-7b-chat", "bits": 4}
    return [about | {"value": f"{float(row[setting]):g}", "asr": float(row["asr"]) / 100} for row in rows]


def plotted_csv(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([shown(row.get(column)) for column in COLUMNS] for row in rows)
    return text.getvalue()
