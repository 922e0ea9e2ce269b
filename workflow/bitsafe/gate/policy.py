"""The policy of a gate: limits on the bounds of intervals, read from a YAML file. Rates and changes are fractions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from bitsafe.cells import Cell
from bitsafe.config import Section, read_yaml
from bitsafe.errors import UserError
from bitsafe.matrix.tables import Risk, first_error

Fraction = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]

RISE = "most that the upper bound of its change against full precision may be, paired by prompt"
MIN_N = "least scored answers (for a change: scored pairs) to decide on"


@dataclass(frozen=True)
class Limit:
    """One limit of one axis. quantity: `rate` or `change` (against full precision)."""

    key: str
    quantity: str
    most: float  # of the bound, once everything is turned so that more is worse
    sign: int  # 1: more is worse; -1: less is worse


class RateLimits(Section):
    """Limits of a rate that should be low: ASR, over-refusal."""

    max_rate: Fraction | None = Field(None, description="most that the upper bound of the rate may be")
    max_rise: Fraction | None = Field(None, description=RISE)
    min_n: Count = Field(1, description=MIN_N)

    def limits(self) -> Iterator[Limit]:
        if self.max_rate is not None:
            yield Limit("max_rate", "rate", self.max_rate, 1)
        if self.max_rise is not None:
            yield Limit("max_rise", "change", self.max_rise, 1)


class ValueLimits(Section):
    """Limits of a score that should be high: utility."""

    min_value: Fraction | None = Field(None, description="least that the lower bound of the score may be")
    max_fall: Fraction | None = Field(None, description="most that it may fall below full precision, by the same bound")
    min_n: Count = Field(1, description=MIN_N)

    def limits(self) -> Iterator[Limit]:
        if self.min_value is not None:
            yield Limit("min_value", "rate", -self.min_value, -1)
        if self.max_fall is not None:
            yield Limit("max_fall", "change", self.max_fall, -1)


class Where(Section):
    """What an axis is measured on."""

    benchmarks: list[str] | None = Field(None, min_length=1, description="all of the axis's kind if absent")
    decodings: list[str] | None = Field(None, min_length=1, description="the policy's own if absent")
    judges: list[str] | None = Field(None, min_length=1, description="the policy's own if absent")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        for bits in (None, *self.by_bits):
            if not list(self.at(bits).limits()):
                keys = " or ".join(key for key in self.of.model_fields if key != "min_n")
                raise ValueError(f"no limit{f' at {bits} bits' if bits else ''}: give {keys}")
        return self

    def at(self, bits: int | None) -> Any:
        """The limits at a bit-width: those of `by_bits` laid over the axis's own."""
        own = {key: getattr(self, key) for key in self.of.model_fields}
        over = self.by_bits.get(bits)
        return self.of(**own | ({key: getattr(over, key) for key in over.model_fields_set} if over else {}))


class RateAxis(Where, RateLimits):
    of: ClassVar = RateLimits
    by_bits: dict[int, RateLimits] = Field({}, description="limits that differ at a bit-width")


class ValueAxis(Where, ValueLimits):
    of: ClassVar = ValueLimits
    by_bits: dict[int, ValueLimits] = Field({}, description="limits that differ at a bit-width")


class Selection(Section):
    """Which cells the gate holds; of a noun that is not named, all."""

    models: list[str] | None = None
    methods: list[str] | None = None
    bits: list[int] | None = None
    risks: list[Risk] | None = None
    stages: list[str] | None = None

    def holds(self, cell: Cell) -> bool:
        asked = {"model": self.models, "method": self.methods, "bits": self.bits}
        asked |= {"risk": self.risks, "stage": self.stages}
        return all(names is None or getattr(cell, noun) in names for noun, names in asked.items())


class Policy(Section):
    """What a release must keep. An axis that is asked for and was not measured is never a pass."""

    summary: str = Field("", description="said at the top of the gate's report")
    judges: list[str] = Field(min_length=1, description="judges that must each have judged; each must pass")
    decodings: list[str] | None = Field(None, min_length=1, description="all of the run if absent; of a grid its worst")
    cells: Selection = Field(default_factory=Selection, description="all quantized and patched ones if absent")
    confidence: float = Field(0.95, gt=0.5, lt=1, strict=True, description="least coverage of the run's intervals")
    artefacts: bool = Field(True, description="hash the artefacts at hand: each must be the one that was measured")
    assumed_noise: Fraction = Field(0.0, description="share of pairs that noise flips (ψ0), as `plan` assumes it")
    asr: RateAxis = Field(description="attack success rate")
    over_refusal: RateAxis = Field(description="refused share of what should be answered")
    utility: ValueAxis | None = Field(None, description="score of what should be answered; no limit if absent")

    def axes(self) -> dict[str, RateAxis | ValueAxis]:
        found = {name: getattr(self, name) for name in ("asr", "over_refusal", "utility")}
        return {name: axis for name, axis in found.items() if axis is not None}


def read_policy(file: Path) -> Policy:
    """The policy, or one line that names the file, the key and the closest known one."""
    values = read_yaml(file)
    try:
        return Policy(**values)
    except ValidationError as error:
        raise UserError(f"{file}: {first_error(error, Policy).lstrip('.')}") from None
    except TypeError as error:  # a key that is no string
        raise UserError(f"{file}: {error}") from None
