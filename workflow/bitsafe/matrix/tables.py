"""The tables of nouns (workflow/tables/*.yaml): a row a method, patch, benchmark, decoding, engine, judge, model, ….

A row may derive another: `qresafe_tau005: {base: qresafe, tau: 0.05}` copies `qresafe` and changes one parameter.
"""

import ast
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from bitsafe.cells import RISKS
from bitsafe.errors import UserError
from bitsafe.matrix.data_rows import FILES, BenchmarkRow, DatasetRow, Kind, Risk, Row, check_declared
from bitsafe.resources.rows import Architecture, Demand

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "workflow" / "tables"

RISKS_OF_USE = {"no": RISKS[:1], "calibration": RISKS[1:], "finetune": RISKS[1:]}


class MethodRow(Row):
    """A quantizer: where its code is, what it supports, and its parameters."""

    module: str
    summary: str = ""
    bits: list[int]
    risk_use: Literal["no", "calibration", "finetune"]
    environment: str = Field("core", description="where its library lives: core, or a file of envs/ (make env NAME=…)")
    risks: list[Risk] | None = Field(None, description="the risks it makes sense at; follows from risk_use if absent")
    params: dict[str, Any] = {}
    by_risk: dict[Risk, dict[str, Any]] = Field({}, description="parameters that differ at a risk")
    limits: dict[int, dict[str, float]] = Field({}, description="what the artefact check accepts, by bits")
    restorable: bool = Field(
        True, description="whether each weight can be put back as it was before rounding; never after fine-tuning"
    )

    def unrestorable(self) -> str | None:
        """Why no weight of this method's artefacts can be put back in full precision, or None."""
        if self.risk_use == "finetune":
            return "it trains the weights it rounds"
        return None if self.restorable else "what it rounds cannot be told from the source weight by weight"

    def supported_risks(self) -> tuple[str, ...]:
        return tuple(self.risks or RISKS_OF_USE[self.risk_use])


class PatchRow(Row):
    """A repair of a quantized cell, or a control for one."""

    module: str
    summary: str = ""
    control: bool = Field(False, description="a control (left out of Holm's family), not a repair")
    restores: bool = Field(
        False, description="it puts weights of full precision back: only for methods that are `restorable`"
    )
    settings: str | None = Field(
        None, description="module and class that read `params` (without torch): bad ones are told before anything runs"
    )
    params: dict[str, Any] = {}
    by_risk: dict[Risk, dict[str, Any]] = {}


class DecodingRow(Row):
    """How answers are drawn; the system prompt is part of it."""

    summary: str = ""
    model_defaults: bool = Field(False, description="use the checkpoint's own generation_config")
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    system_prompt: str | None = Field(None, description="takes the place of the prompt's own")
    user_prefix: str | None = Field(None, description="set before the last user message, space included")
    grid: dict[Literal["temperature", "top_p", "top_k"], list[float]] | None = Field(
        None, description="settings answered side by side: one knob at a time takes these values"
    )

    @model_validator(mode="after")
    def _grid_is_drawn(self) -> "DecodingRow":
        if self.grid is None:
            return self
        if self.model_defaults or not self.do_sample:
            raise ValueError("a `grid` needs `do_sample: true` and no `model_defaults`: its settings are explicit")
        values = [value for knob in self.grid.values() for value in knob]
        if not values or min(values) <= 0 or max(self.grid.get("top_p") or [1]) > 1:
            raise ValueError(
                "a `grid` needs values above 0, of top_p 1 at most: leave a knob out instead of setting it off"
            )
        return self


class EngineRow(Row):
    """What answers the prompts; one engine serves all cells of a run."""

    module: str
    summary: str = ""
    chooses: bool = Field(False, description="answers questions with options by their letters' probabilities")
    params: dict[str, Any] = {}


class JudgeRow(Row):
    """Something that reads an answer and says harmful, safe, ambiguous or unscored."""

    module: str
    summary: str = ""
    family: str
    needs_reference: bool = Field(False, description="applies only to benchmarks whose rows carry reference facts")
    kinds: list[Kind] | None = Field(None, description="the kinds of benchmark it judges; all if absent")
    benchmarks: list[str] | None = Field(None, description="the benchmarks it judges; all that it can if absent")
    asks: Literal["choice"] | None = Field(None, description="choice: it reads the letters of such benchmarks alone")
    pairwise: bool | None = Field(None, description="it compares with the answers of full precision")
    checked: bool | None = Field(None, description="its module's `check(setting)` reads the row before anything runs")
    reads: str | None = Field(None, description="a file of the repository that it reads: a rubric, or human labels")
    params: dict[str, Any] = {}
    endpoint: dict[str, Any] = Field(
        {}, description="how it is reached, or on what it runs: moves no verdict, so a change judges nothing again"
    )
    judge_slots: int = Field(0, description="slots that a job of it takes: 1 of those that ask over the network", ge=0)
    resources: Demand = Field(Demand(), description="of a job of it, in place of what is computed (docs/resources.md)")


class ModelRow(Row):
    """A model: where its checkpoint comes from, and the data and settings that go with it."""

    summary: str = ""
    licence: str
    path: str | None = Field(None, description="folder of the repository; {replicate} names the replicate")
    sources: list[dict[str, str]] = Field([], description="tried in order: {hub, revision}, {wheel, file}, {folder}")
    replicates: int = 1
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    max_new_tokens: int = 256
    batch_size: int = Field(32, description="rows generated together")
    architecture: Architecture | None = Field(
        None, description="its size: needed where the checkpoint is not here yet, and held against it once it is"
    )
    resources: Demand = Field(
        Demand(), description="of a job that loads it, in place of what is computed (docs/resources.md)"
    )
    risk_sets: dict[Risk, str] = Field({}, description="the data set of each risk")
    patch_set: str | None = Field(None, description="the prompts a patch learns from, unless `pairs_from` names others")
    settings: dict[str, dict[str, Any]] = Field({}, description="parameters of a method or patch for this model")
    warning: str = Field("", description="said in the report wherever the model's numbers stand")


KINDS: dict[str, type[Row]] = {
    "methods": MethodRow,
    "patches": PatchRow,
    "datasets": DatasetRow,
    "benchmarks": BenchmarkRow,
    "decodings": DecodingRow,
    "engines": EngineRow,
    "judges": JudgeRow,
    "models": ModelRow,
}


class Tables:
    """All rows, the user's laid over the shipped ones, variants resolved."""

    def __init__(self, extra: dict[str, dict[str, dict]] | None = None, where: str = "config.yaml") -> None:
        self._rows: dict[str, dict[str, Row]] = {}
        for kind, model in KINDS.items():
            file = f"workflow/tables/{kind}.yaml"
            raw = {name: (row, file) for name, row in shipped(kind).items()}
            raw |= {name: (row, f"{where}: tables.{kind}") for name, row in ((extra or {}).get(kind) or {}).items()}
            self._rows[kind] = {name: _resolve(kind, model, name, raw) for name in raw}
        for name, row in ((extra or {}).get("datasets") or {}).items():
            if row.get("file"):
                check_declared(f"{where}: tables.datasets.{name}", self._rows["datasets"][name])

    def rows(self, kind: str) -> dict[str, Row]:
        return self._rows[kind]

    def get(self, kind: str, name: str, asked_by: str) -> Any:
        """The row `name`, or an error that says who asked and which name comes closest."""
        if name not in self._rows[kind]:
            raise UserError(f"{asked_by}: no {kind} row {name!r}{suggestion(name, self._rows[kind])}")
        return self._rows[kind][name]


@lru_cache
def shipped(kind: str) -> dict[str, dict]:
    file = FOLDER / f"{kind}.yaml"
    return yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader) or {}


def _resolve(kind: str, model: type[Row], name: str, raw: dict[str, tuple[dict, str]], seen: tuple = ()) -> Row:
    row, where = raw[name]
    if not isinstance(row, dict):
        raise UserError(f"{where}.{name}: a mapping of keys is expected, not {row!r}")
    if name in seen:
        raise UserError(f"{where}.{name}: `base` goes round in a circle ({' -> '.join((*seen, name))})")
    base = row.get("base")
    if base is None:
        return _validate(model, row, f"{where}.{name}")
    if base not in raw:
        raise UserError(f"{where}.{name}.base: no {kind} row {base!r}{suggestion(base, raw)}")
    return _derive(model, _resolve(kind, model, base, raw, (*seen, name)), row, f"{where}.{name}")


def _derive(model: type[Row], parent: Row, row: dict, where: str) -> Row:
    """A variant: its row's own keys, and bare parameters of its base, laid over the base."""
    merged = parent.model_dump()
    for key, value in row.items():
        if key == "base":
            continue
        if key in FILES and merged.get(key) and all(isinstance(file, dict) for file in (value or {}).values()):
            merged[key] |= {name: merged[key].get(name, {}) | file for name, file in (value or {}).items()}
        elif key in merged:
            merged[key] = {**merged[key], **value} if isinstance(merged[key], dict) else value
        elif key in merged.get("params", {}):
            merged["params"] = {**merged["params"], key: value}
        else:
            known = [*merged, *merged.get("params", {})]
            raise UserError(f"{where}.{key}: unknown key{suggestion(key, known)}")
    return _validate(model, merged, where)


def _validate(model: type[Row], row: dict, where: str) -> Row:
    try:
        return model(**row)
    except ValidationError as error:
        raise UserError(f"{where}{first_error(error, model)}") from None


def first_error(error: ValidationError, model: type[BaseModel]) -> str:
    """The first complaint of pydantic as `.key: what is wrong`, with the closest known key."""
    # a misspelt key is told before the missing one that it was meant to be
    detail = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key{suggestion(str(detail['loc'][-1]), _keys_at(model, detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{key}: this key is missing"
    given = "" if isinstance(detail["input"], dict) else f", not {detail['input']!r}"
    return f"{key}: {detail['msg'][:1].lower()}{detail['msg'][1:]}{given}"


def _keys_at(model: type[BaseModel], loc: tuple) -> list[str]:
    """The keys a nested model knows at a location of the config."""
    for part in loc:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return []
        inner = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)]
        model = next((a for a in inner if issubclass(a, BaseModel)), model)
    return list(model.model_fields)


def suggestion(name: str, known: Any) -> str:
    close = get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(map(str, list(known)[:20]))}"


def labels_file(judge: str) -> Path:
    """Where the counts of a judge's errors against human labels ship, if they do."""
    return ROOT / "data" / "judges" / f"{judge}.labels.json"


@lru_cache
def version(module: str) -> int:
    """The literal `VERSION = n` of a module, read without importing it (and the heavy packages it needs)."""
    file = ROOT / "workflow" / (module.replace(".", "/") + ".py")
    if not file.exists():
        raise UserError(f"{file.relative_to(ROOT)}: no such module, named in a table row as {module!r}")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "VERSION":
            return ast.literal_eval(node.value)
    raise UserError(f"{file.relative_to(ROOT)}: a line `VERSION = 1` is missing")
