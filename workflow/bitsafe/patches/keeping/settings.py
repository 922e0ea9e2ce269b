"""The parameters of `mixed_precision` and its controls."""

from dataclasses import dataclass
from typing import Literal

from bitsafe.patches.shared.parameters import Parameters


@dataclass(frozen=True)
class KeepSettings(Parameters):
    """Parameters of a row of patches.yaml, by these names."""

    prompts: int | None = None  # how many of the patch set are used (all if absent); chosen before the patch starts
    tau: float = 0.05  # share of the weights that stay in 16 bits
    mask_scope: Literal["tensor", "global"] = "tensor"  # the share is taken within each layer, or over all layers
    criterion: Literal["snip", "magnitude", "random"] = "snip"  # which weights: the other two are controls
    score_on: Literal["refusals", "all"] = "refusals"  # answers of the full-precision model that SNIP scores
    snip_examples: int | None = None  # at most so many of them (all if absent)
    batch_size: int = 8  # answers scored together; the scores do not depend on it
    max_new_tokens: int = 64  # length of the answers

    def limits(self) -> list[tuple[str, bool, str]]:
        return [("tau", 0 <= self.tau <= 1, "a share of the weights, from 0 to 1, is needed")]
