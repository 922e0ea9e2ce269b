"""A run: its configuration, its matrix of cells, and where everything of it lies."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bitsafe.cells import Cell
from bitsafe.config import Block, Config, validate
from bitsafe.errors import UserError
from bitsafe.files import read_json, write_json
from bitsafe.generate.grid import settings_of
from bitsafe.matrix.checks import check_patch, check_settings, check_supported, chosen_blocks
from bitsafe.matrix.tables import (
    BenchmarkRow,
    DatasetRow,
    DecodingRow,
    EngineRow,
    JudgeRow,
    MethodRow,
    ModelRow,
    PatchRow,
    Tables,
    suggestion,
)

AA = "_aa"  # suffix of the decoding under which full precision answers a second time


@dataclass(frozen=True)
class Run:
    config: Config

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """The run that lies in `folder`, as it was started."""
        file = Path(folder) / "config.json"
        if not file.exists():
            raise UserError(f"{file}: no such file: {folder} is not the folder of a run that was started")
        run = cls(validate(read_json(file), [file]))
        if run.folder.resolve() != Path(folder).resolve():  # moved or archived since
            run = cls(run.config.model_copy(update={"results": str(Path(folder).parent), "run": Path(folder).name}))
        return run

    def save(self) -> None:
        write_json(self.folder / "config.json", self.config.model_dump())

    @property
    def name(self) -> str:
        return self.config.run

    @cached_property
    def folder(self) -> Path:
        return Path(self.config.results) / self.config.run

    @cached_property
    def tables(self) -> Tables:
        return Tables(self.config.tables)

    @cached_property
    def recipes(self) -> dict[tuple, str]:
        """What bitsafe.matrix.recipes has found so far: a dry run asks for each of thousands twice."""
        return {}

    # ---- the matrix -------------------------------------------------------------------------------------------

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell, each once, a cell before its patches; full precision first."""
        found: dict[Cell, None] = {}
        for model in self.config.models:
            self.model(model)
            found[Cell(model, "full", 16)] = None
        for number, block in self.blocks:
            for model in block.models or self.config.models:
                found |= dict.fromkeys(self._cells_of(model, block, f"matrix[{number}]"))
        order = {cell: place for place, cell in enumerate(found)}
        return sorted(found, key=lambda cell: (order.get(cell.quantized, order[cell]), order[cell]))

    @cached_property
    def blocks(self) -> list[tuple[int, Block]]:
        """The blocks that `parts` asks for, with their places in the matrix."""
        return chosen_blocks(self.config)

    def cells_of_part(self, part: str | None) -> set[Cell]:
        """The cells that the blocks of a part name."""
        blocks = [(number, block) for number, block in self.blocks if block.part == part]
        return {
            cell
            for number, block in blocks
            for model in block.models or self.config.models
            for cell in self._cells_of(model, block, f"matrix[{number}]")
        }

    def _cells_of(self, model: str, block: Block, where: str) -> list[Cell]:
        stages = ["quantized", *block.patches]
        cells = []
        for method in block.methods:
            row: MethodRow = self.tables.get("methods", method, f"{where}.methods")
            for patch in block.patches:
                check_patch(
                    f"{where}.patches", patch, self.tables.get("patches", patch, f"{where}.patches"), method, row
                )
            for bits in block.bits:
                check_supported(f"{where}.bits", method, f"{bits} bits", bits, row.bits)
                for risk in block.risks:
                    check_supported(f"{where}.risks", method, f"risk {risk!r}", risk, row.supported_risks())
                    cells += [Cell(model, method, bits, risk, stage) for stage in stages]
        for cell in cells:
            if cell.is_patched:
                # one without prompts to learn from, or with parameters that cannot be, is told before anything runs
                self.patch_set(cell)
                check_settings(self.patch(cell).settings, self.params(cell), cell)
        return cells

    def has(self, cell: Cell) -> bool:
        return cell in self._cell_set

    @cached_property
    def _cell_set(self) -> frozenset[Cell]:
        return frozenset(self.cells)

    # ---- rows -------------------------------------------------------------------------------------------------

    def model(self, name: str) -> ModelRow:
        return self.tables.get("models", name, "models")

    def method(self, cell: Cell) -> MethodRow:
        return self.tables.get("methods", cell.method, str(cell))

    def patch(self, cell: Cell) -> PatchRow:
        return self.tables.get("patches", cell.stage, str(cell))

    def judge(self, name: str) -> JudgeRow:
        return self.tables.get("judges", name, "judges")

    @cached_property
    def benchmarks(self) -> dict[str, BenchmarkRow]:
        rows = {name: self.tables.get("benchmarks", name, "benchmarks") for name in self.config.benchmarks}
        for name, row in rows.items():
            if missing := row.unpinned():
                remedy = f"`python -m bitsafe benchmarks --name {name} --fetch` prints its hash, and where to write it"
                raise UserError(f"benchmarks: {name}: not pinned ({', '.join(missing)}): {remedy}")
            if row.asks == "choice" and not self.engine.chooses:
                engine = self.config.generate.engine
                remedy = f"answer with `engine: transformers`, or leave {name} out"
                raise UserError(
                    f"generate.engine: {engine} tells no probabilities of options, as {name} asks: {remedy}"
                )
        return rows

    @property
    def measured_benchmarks(self) -> list[str]:
        """Benchmarks that are answered in words, on which the distance from full precision is measured."""
        return [name for name, row in self.benchmarks.items() if row.asks is None]

    @cached_property
    def measured_decoding(self) -> str:
        """The first decoding that is no grid: on its answers the distance from full precision is measured."""
        found = next((name for name in self.decodings if not self.settings(name)), None)
        if found is None:
            raise UserError("decodings: grids alone, and `distance` needs one that is none: add `sampled` or `greedy`")
        return found

    @property
    def judges(self) -> list[str]:
        for name in self.config.judges:
            for benchmark in self.judge(name).benchmarks or []:
                self.tables.get("benchmarks", benchmark, f"judges: {name}.benchmarks")
        return self.config.judges

    def judge_applies(self, judge: str, benchmark: str) -> bool:
        asked, row = self.benchmarks[benchmark], self.judge(judge)
        if asked.asks != row.asks or benchmark not in (row.benchmarks or [benchmark]):
            return False
        return (asked.reference or not row.needs_reference) and (row.kinds is None or asked.kind in row.kinds)

    @property
    def decodings(self) -> list[str]:
        return self.config.decodings

    def decoding(self, name: str) -> DecodingRow:
        return self.tables.get("decodings", name.removesuffix(AA), "decodings")

    def settings(self, decoding: str) -> list[str]:
        """The names of a grid's settings; none for a plain decoding."""
        return list(settings_of(self.decoding(decoding).model_dump()))

    def decodings_of(self, cell: Cell) -> list[str]:
        """The decodings a cell answers under: the A/A ones only for full precision, and never of a grid (its cost)."""
        twice = self.config.score.noise_floor and cell == cell.baseline
        return self.decodings + [name + AA for name in self.decodings if twice and not self.settings(name)]

    @property
    def engine(self) -> EngineRow:
        return self.tables.get("engines", self.config.generate.engine, "generate.engine")

    @cached_property
    def controls(self) -> set[str]:
        return {name for name, row in self.tables.rows("patches").items() if row.control}

    @cached_property
    def trained(self) -> set[str]:
        """Methods that fine-tune on the risk set; the others calibrate on it, or do without."""
        return {name for name, row in self.tables.rows("methods").items() if row.risk_use == "finetune"}

    def risk_set(self, cell: Cell) -> tuple[str, DatasetRow] | None:
        """Name and row of the calibration or fine-tuning data of a cell; None at risk none."""
        if cell.risk == "none":
            return None
        where = f"workflow/tables/models.yaml: {cell.model}.risk_sets"
        sets = self.model(cell.model).risk_sets
        if cell.risk not in sets:
            raise UserError(f"{where}.{cell.risk}: missing, and {cell} needs it: name a row of datasets.yaml")
        name = sets[cell.risk]
        row = self.tables.get("datasets", name, f"{where}.{cell.risk}")
        if row.risk not in (None, cell.risk):
            raise UserError(f"{where}.{cell.risk}: data set {name} is declared {row.risk}: name one of this risk")
        return name, row

    def patch_set(self, cell: Cell) -> tuple[str, DatasetRow]:
        """Name and row of the prompts that a patch of this cell learns from, as its `pairs_from` says."""
        asked = self.params(cell).get("pairs_from", "patch_set")
        if asked == "patch_set":
            where = f"workflow/tables/models.yaml: {cell.model}.patch_set"
            name = self.model(cell.model).patch_set
            if name is None:
                raise UserError(f"{where}: missing, and {cell} needs it: name a row of datasets.yaml")
            return name, self.tables.get("datasets", name, where)
        return self._pairs_from(cell, asked)

    def _pairs_from(self, cell: Cell, asked: str) -> tuple[str, DatasetRow]:
        """Name and row of the cell's own risk set (`calibration`), or of the data set that is asked for."""
        where, sets = f"workflow/tables/patches.yaml: {cell.stage}.pairs_from", self.tables.rows("datasets")
        if asked == "calibration":
            if found := self.risk_set(cell):
                return found
            remedy = "say patch_set, name a row of datasets.yaml, or leave this patch out at risk none"
            raise UserError(f"{where}: calibration, and {cell} has no calibration data: {remedy}")
        known = ["calibration", "patch_set", *sets]
        if asked not in known:
            raise UserError(f"{where}: no data set {asked!r}{suggestion(asked, known)}")
        return asked, sets[asked]

    @cached_property
    def learned_sets(self) -> dict[str, tuple[DatasetRow, list[str]]]:
        """Every set that a cell of this run learns from, with what for: the risk, or `patch`."""
        found: dict[str, tuple[DatasetRow, list[str]]] = {}
        for cell in self.cells:
            uses = [(self.patch_set(cell), "patch")] if cell.is_patched else [(self.risk_set(cell), cell.risk)]
            utility = cell.is_patched and self.params(cell).get("utility_examples")
            if utility and "benign" in self.model(cell.model).risk_sets:
                uses.append((self.risk_set(replace(cell, risk="benign")), "patch"))
            for named, use in uses:
                if named and use not in found.setdefault(named[0], (named[1], []))[1]:
                    found[named[0]][1].append(use)
        return found

    def params(self, cell: Cell) -> dict[str, Any]:
        """Every parameter of a cell: its table row, what differs at its risk, what differs for its model."""
        row = self.patch(cell) if cell.is_patched else self.method(cell)
        name = cell.stage if cell.is_patched else cell.method
        setting = dict(self.model(cell.model).settings.get(name, {}))
        by_risk = setting.pop("by_risk", {}).get(cell.risk, {})
        unknown = [key for key in {**setting, **by_risk} if key not in row.params]
        if unknown:
            where = f"workflow/tables/models.yaml: {cell.model}.settings.{name}.{unknown[0]}"
            raise UserError(f"{where}: unknown parameter{suggestion(unknown[0], row.params)}")
        return {**row.params, **row.by_risk.get(cell.risk, {}), **setting, **by_risk}

    # ---- places -----------------------------------------------------------------------------------------------

    def replicates(self, model: str) -> int:
        return self.config.replicates or self.model(model).replicates

    def at(self, cell: Cell, *parts: str) -> Path:
        return self.folder.joinpath(cell.path, *parts)

    def replicate_folder(self, cell: Cell, replicate: int) -> Path:
        return self.at(cell, f"rep{replicate}")

    @cached_property
    def index_files(self) -> list[Path]:
        """The index files of every cell: of its artefacts, its answers and its verdicts."""
        made = [self.at(cell, name) for cell in self.cells for name in ("artefacts.json", "answers.json")]
        return [*made, *self.distance_files, *(path for _cell, _judge, path in self.judge_files)]

    @cached_property
    def distance_files(self) -> list[Path]:
        """The index files of the distances from full precision, if they are asked for."""
        return [self.at(cell, "distance.json") for cell in self.cells] if self.config.distance.tokens else []

    @cached_property
    def judge_files(self) -> list[tuple[Cell, str, Path]]:
        """Cell, judge and the index file of its verdicts: what a finished run has."""
        return [(cell, judge, self.at(cell, f"verdicts.{judge}.json")) for cell in self.cells for judge in self.judges]
