"""The configuration: one model that is the source of config.yaml's defaults, the JSON schema and the reference page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bitsafe.cells import NAME
from bitsafe.errors import UserError
from bitsafe.matrix.tables import Risk, first_error
from bitsafe.resources.rows import Demand


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Block(Section):
    """A block of the matrix: every method × bits × risk in it, and every patch on each of those."""

    methods: list[str] = Field(description="rows of workflow/tables/methods.yaml")
    bits: list[int] = Field(description="bit-widths, each supported by every method of the block")
    risks: list[Risk] = Field(["none"], description="risk of the calibration or fine-tuning data")
    patches: list[str] = Field([], description="rows of workflow/tables/patches.yaml, applied to each cell")
    models: list[str] | None = Field(None, description="of the run's models, those that the block is for; null: all")
    part: str | None = Field(None, description="a name that `parts` may choose the block by", pattern=f"^{NAME}$")


class Generate(Section):
    """Answering the benchmarks."""

    engine: str = Field("transformers", description="row of workflow/tables/engines.yaml, the same for every cell")
    batch_size: int | None = Field(
        None,
        description="answers at once, of short ones up to twice as many; null: the model row's own",
        ge=1,
    )
    max_new_tokens: int | None = Field(None, description="tokens an answer may have; null: the model row's own", ge=1)
    samples: int = Field(1, description="answers drawn for each prompt", ge=1)


class Distance(Section):
    """How far cells lie from full precision, token by token (docs/utility.md)."""

    tokens: int = Field(0, description="tokens of full precision's answers, a benchmark; 0: not measured", ge=0)
    top: int = Field(256, description="its likeliest tokens that are kept one by one; the others count as one", ge=1)


class Resources(Section):
    """What jobs ask a cluster for, computed from the model and the work (docs/resources.md)."""

    gpu_from: float | None = Field(
        1e9, description="weights from which a model's jobs ask for GPUs; null: none do", gt=0
    )
    gpu_memory_mb: int = Field(80_000, description="megabytes of one GPU", gt=0)
    gpu_speed: float = Field(1.0, description="speed of one GPU, an A100's being 1", gt=0)
    cpu_speed: float = Field(1.0, description="speed of one core, that of docs/performance.md being 1", gt=0)
    mem_mb_limit: int = Field(1_000_000, description="megabytes that no attempt asks for more than", gt=0)
    runtime_limit: int = Field(4320, description="minutes that no attempt asks for more than", gt=0)
    steps: dict[
        Literal["fetch_model", "near_duplicates", "quantize", "patch", "generate", "distance", "judge", "score"], Demand
    ] = Field({}, description="what the jobs of a step ask for, in place of what is computed: {generate: {gpu: 2}}")


class Score(Section):
    """Statistics (docs/statistics.md)."""

    confidence: float = Field(0.95, description="coverage of every interval", gt=0.5, lt=1)
    permutations: int = Field(10_000, description="draws of the sign-flip test where it is not enumerated", ge=100)
    noise_floor: bool = Field(True, description="answer full precision twice (A/A run), for the noise floor and mde")


class Report(Section):
    """The page people read."""

    title: str = Field("bitsafe", description="heading of report.html")
    transcripts: int = Field(100_000, description="answers that the page holds, flips first; 0: no transcripts", ge=0)


class Release(Section):
    """What a release owner says of the artefacts (docs/register.md); the rest is observed."""

    owner: str = Field("", description="who answers for the artefacts")
    review_by: str = Field("", description="when they are to be reviewed again")
    production_decoding: str | None = Field(None, description="row of the decodings table that production uses")


class Gate(Section):
    """What the target `gate` holds the run to (docs/gate.md)."""

    policy: str = Field("experiments/policy.yaml", description="policy file")


class Config(Section):
    """What one run computes. Every key has a default; a file given with --configfile is laid over config.yaml."""

    run: str = Field("demo", description="name of the run; its folder is <results>/<run>", pattern=f"^{NAME}$")
    results: str = Field("results", description="folder of all runs")
    data_dir: str | None = Field(None, description="folder looked into before any download (or the variable DATA_DIR)")
    seed: int = Field(0, description="seed of calibration, training and sampling", ge=0)
    replicates: int | None = Field(None, description="replicates a cell; null: the model row's own", ge=1)
    models: list[str] = Field(["toy"], description="rows of workflow/tables/models.yaml", min_length=1)
    matrix: list[Block] = Field(
        [
            Block(methods=["full"], bits=[16], risks=["none", "benign", "obedient", "harmful"]),
            Block(methods=["rtn"], bits=[8, 4, 3, 2]),
            Block(methods=["gptq", "awq"], bits=[4, 3, 2], risks=["benign"]),
            Block(methods=["ste", "qlora"], bits=[4], risks=["benign", "obedient", "harmful"], patches=["qresafe"]),
            Block(methods=["ste", "qlora"], bits=[4], risks=["harmful"], patches=["dpo", "random_mask"]),
        ],
        description="blocks of cells; full precision at risk none is always added",
        min_length=1,
    )
    parts: list[str] | None = Field(None, description="the blocks of these parts alone; null: every block")
    benchmarks: list[str] = Field(
        ["toy_forbidden", "toy_borderline", "toy_benign"],
        description="rows of workflow/tables/benchmarks.yaml",
        min_length=1,
    )
    decodings: list[str] = Field(["default"], description="rows of workflow/tables/decodings.yaml", min_length=1)
    judges: list[str] = Field(["keyword", "reference"], description="rows of workflow/tables/judges.yaml", min_length=1)
    generate: Generate = Field(default_factory=Generate, description="answering the benchmarks")
    distance: Distance = Field(default_factory=Distance, description="distance from full precision, token by token")
    resources: Resources = Field(default_factory=Resources, description="what jobs ask a cluster for")
    score: Score = Field(default_factory=Score, description="statistics")
    report: Report = Field(default_factory=Report, description="the page people read")
    release: Release = Field(default_factory=Release, description="what a release owner says of the artefacts")
    gate: Gate = Field(default_factory=Gate, description="what the target `gate` holds the run to")
    tables: dict[str, dict[str, dict[str, Any]]] = Field(
        {}, description="rows added to the tables, or laid over them: {methods: {my_rtn: {base: rtn, group_size: 32}}}"
    )


def merge(base: dict, over: dict) -> dict:
    """`over` laid over `base`: mappings merge key by key, anything else is replaced (as Snakemake does)."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def read_yaml(path: Path) -> dict:
    try:
        loaded = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        at = "" if line is None else f":{line + 1}"
        raise UserError(f"{path}{at}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(loaded or {}, dict):
        raise UserError(f"{path}: a mapping of keys is expected at the top")
    return loaded or {}


def read_config(files: Sequence[Path]) -> Config:
    """The files laid over each other, first to last, and validated."""
    merged: dict = {}
    for file in files:
        merged = merge(merged, read_yaml(file))
    return validate(merged, files)


def validate(values: dict, files: Sequence[Path] = ()) -> Config:
    """The config, or one line that names the file and the key at fault."""
    try:
        return Config(**values)
    except ValidationError as error:
        loc = error.errors()[0]["loc"]
        raise UserError(f"{_file_of(loc, files)}: {first_error(error, Config).lstrip('.')}") from None
    except TypeError as error:  # a key that is no string
        raise UserError(f"{_file_of((), files)}: {error}") from None


def _file_of(loc: tuple, files: Sequence[Path]) -> str:
    """The last file that sets the key at fault; a key set by no file came with --config."""
    for file in reversed(list(files)):
        if loc and loc[0] in read_yaml(file):
            return str(file)
    return "config (--config)" if files else "config.yaml"
