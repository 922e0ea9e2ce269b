"""The parameters of `q_realign`."""

from dataclasses import dataclass
from typing import Literal

from bitsafe.patches.shared.parameters import Parameters


@dataclass(frozen=True)
class RealignSettings(Parameters):
    """Parameters of a row of patches.yaml, by these names."""

    prompts: int | None = None  # how many of the patch set are used (all if absent); chosen before the patch starts
    validation: int = 48  # how many of them only choose among learning rates and check the separators
    refused_share: float = 0.75  # of the loss; the released code draws three malicious prompts for a benign one
    # Where refused prompts go: across the line that separates them in full precision, as in the paper, or to the very
    # activations that full precision has for them.
    refused_target: Literal["separator", "full_precision"] = "separator"
    l1: float = 1.0  # λ beside the summed log-loss of a separator, scikit-learn's 1/C
    epochs_low: int = 5  # passes over the prompts a block, in the lower half of the model
    epochs_high: int = 15  # and in the upper half
    # A step of AdamW: in widths of the weight's own cell, or of an adapter's entries in their unit. Of several, the one
    # is kept whose patch best agrees with full precision on the validation prompts.
    lr: float | list[float] = 0.01
    batch_size: int = 8  # prompts, of one length
    max_new_tokens: int = 64  # length of the answers that tell which prompts are refused
    quant_mode: Literal["requant_grid", "adapter"] = "requant_grid"  # codes move, or a low-rank update beside them
    rank: int = 8  # of the adapter
    alpha: float = 16  # its update is (alpha / rank) B A

    def limits(self) -> list[tuple[str, bool, str]]:
        several = isinstance(self.lr, list)
        return [
            ("refused_share", 0 <= self.refused_share <= 1, "a share of the loss, from 0 to 1, is needed"),
            ("l1", self.l1 >= 0, "a number from 0 on is needed"),
            ("batch_size", self.batch_size > 0, "at least one prompt is needed"),
            ("rank", self.rank > 0, "an adapter has at least rank 1"),
            ("lr", not several or bool(self.lr), "at least one learning rate is needed"),
            ("validation", self.validation > 0 or not several, "prompts are needed to choose among several `lr`"),
        ]
