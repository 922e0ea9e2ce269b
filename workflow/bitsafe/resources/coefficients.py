"""The numbers of workflow/tables/resources.yaml, read and checked once."""

from functools import lru_cache

import yaml
from pydantic import BaseModel, ConfigDict

from bitsafe.matrix.tables import FOLDER, MethodRow


class Numbers(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Device(Numbers):
    flops: float
    trained_flops: float
    bandwidth: float
    step: float
    read: float


class Requests(Numbers):
    mem_margin: float
    scheduler_mb: float
    gpu_margin: float
    runtime_margin: float
    runtime_minutes: float
    cpus: int


class Answers(Numbers):
    share: float
    bytes: float
    verdict_bytes: float


class Row(Numbers):
    """What a step, method, patch or judge takes; the file says what each key is."""

    mb: float
    seconds: float
    loads: int = 0
    loaded: float = 0
    worked: float = 0
    activations: float = 0
    logits: float = 0
    weight_s: dict[str, float] = {}
    slow: float = 1
    bytes_a_second: float = 0
    verdict_kb: float = 0
    verdicts_a_second: float = 0
    answer_kb: float = 0
    answer_s: float = 0
    tokens_in: float = 0
    tokens_out: float = 0
    request_s: float = 0


class Coefficients(Numbers):
    devices: dict[str, Device]
    requests: Requests
    answers: Answers
    steps: dict[str, Row]
    quantize: dict[str, Row]
    patch: dict[str, Row]
    judge: dict[str, Row]

    def of_method(self, row: MethodRow) -> Row:
        return self.quantize.get(name_of(row.module)) or self.quantize[row.risk_use]

    def of_patch(self, module: str, method: MethodRow) -> Row:
        """A patch's own row; else that of the cell's method, whose codes it moves."""
        own = self.patch.get(name_of(module)) or self.patch.get(name_of(method.module))
        return own or self.patch["default"]

    def of_judge(self, module: str) -> Row:
        return self.judge.get(name_of(module)) or self.judge["default"]


def name_of(module: str) -> str:
    return module.rpartition(".")[2]


@lru_cache
def coefficients() -> Coefficients:
    text = (FOLDER / "resources.yaml").read_text(encoding="utf-8")
    return Coefficients(**yaml.load(text, Loader=yaml.CSafeLoader))
