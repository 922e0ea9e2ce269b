"""One cell = model × method × bits × risk × stage; the only place that renders and parses its name."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

NAME = r"[a-z0-9][a-z0-9_.-]*"
RISKS = ("none", "benign", "obedient", "harmful")
_PATH = re.compile(rf"(?P<model>{NAME})/(?P<method>{NAME})/(?P<bits>\d+)bit/(?P<risk>{NAME})(?:/(?P<stage>{NAME}))?/?")


@dataclass(frozen=True, order=True)
class Cell:
    model: str
    method: str
    bits: int
    risk: str = "none"
    stage: str = "quantized"

    @property
    def path(self) -> Path:
        """Where the cell lies, below the run's folder."""
        return Path(str(self))

    @property
    def slug(self) -> str:
        """The nouns joined with `__`, for file names and the register."""
        return "__".join([self.model, self.method, f"{self.bits}bit", self.risk, self.stage])

    def __str__(self) -> str:
        return f"{self.model}/{self.method}/{self.bits}bit/{self.risk}/{self.stage}"

    @property
    def quantized(self) -> "Cell":
        """The cell before any patch."""
        return replace(self, stage="quantized")

    @property
    def baseline(self) -> "Cell":
        """Full precision, no fine-tuning: the reference of the contrast *total*."""
        return Cell(self.model, "full", 16, "none", "quantized")

    @property
    def same_risk_full(self) -> "Cell":
        """Full precision at the same risk: the reference of the contrast *quantization*."""
        return Cell(self.model, "full", 16, self.risk, "quantized")

    @property
    def is_patched(self) -> bool:
        return self.stage != "quantized"

    def columns(self) -> dict[str, str | int]:
        return {name: getattr(self, name) for name in ("model", "method", "bits", "risk", "stage")}

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """Read a path (`toy/rtn/4bit/none[/quantized]`) or a slug; anything else is a ValueError."""
        match = _PATH.fullmatch(text.replace("__", "/"))
        if not match:
            raise ValueError(f"{text!r} is no cell: expected MODEL/METHOD/BITSbit/RISK[/STAGE]")
        found = match.groupdict()
        return cls(found["model"], found["method"], int(found["bits"]), found["risk"], found["stage"] or "quantized")
