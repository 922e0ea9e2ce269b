"""What a patch is given, and its parameters."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bitsafe.patches.shared.pairs import CLASSES
from bitsafe.patches.shared.parameters import Parameters

# (model, tokenizer, prompts, max_new_tokens=…) -> one answer a prompt
Generate = Callable[..., list[str]]


@dataclass(frozen=True)
class PatchJob:
    """One patch of one quantized cell."""

    artefact: Path  # the quantized cell's folder
    teacher: Path  # the full-precision aligned model, whose answers are preferred
    out: Path  # the folder the patched artefact will fill; what it learned from is written beside it
    prompts: list[dict]  # {"id", "messages"}; an assistant's last turn is ignored
    params: dict[str, Any]
    seed: int
    dtype: str
    generate: Generate
    utility: list[dict] = field(default_factory=list)  # benign conversations, where the row asks for some


@dataclass(frozen=True)
class Settings(Parameters):
    """Parameters of a patch; a row of patches.yaml sets them by these names."""

    pairs_from: str = "patch_set"  # or calibration, or a data set: whose prompts; see `Run.patch_set`
    prompts: int | None = None  # how many of the patch set are used (all if absent); chosen before the patch starts
    pair_classes: list[str] = field(default_factory=lambda: list(CLASSES.values()))  # pairs that are learned from
    validation: int = 0  # how many of them make no pair, but choose among several learning rates
    objective: Literal["dpo", "sft"] = "dpo"  # sft: cross-entropy on the preferred answers
    tau: float = 0.2  # share of the weights an update may move
    mask_scope: Literal["tensor", "global"] = "tensor"  # the share is taken within each layer, or over all layers
    # MapMask, which the paper leaves open. The mask lies on the product (Eq. 2), or on the rows and columns with the
    # highest mean score, or on those with any chosen weight.
    mask_mode: Literal["product", "rowcol_mean", "any"] = "product"
    rank: int = 0  # r of a low-rank update B A; 0: every weight moves for itself
    alpha: float = 16  # the update is (alpha / rank) B A
    refresh_every: float = 10  # K: the mask is computed anew every so many steps; below 1, as a share of the steps
    snip_examples: int = 64  # answers scored at each refresh
    snip_target: Literal["winner", "loser"] = "winner"  # which answers; the paper does not say
    utility_examples: int = 0  # benign answers scored at each refresh, where the score subtracts them
    beta: float = 0.1  # β of DPO, 1/nats
    optimizer: Literal["sgd", "adamw"] = "sgd"  # Alg. 1 has a gradient step, the paper's released code AdamW
    # In units of `lr_unit` a step, for a weight with the typical (sgd) or a steady (adamw) gradient. Of several, the
    # one is kept whose patch best agrees with full precision on the validation prompts.
    lr: float | list[float] = 0.003
    lr_unit: Literal["cell", "weight"] = "cell"  # the width of the weight's own cell, or the weight's unit
    start: Literal["uniform", "centre"] = "uniform"  # where in its cell a latent weight starts
    steps: int = 30
    gradient_checkpointing: bool = False  # activations are computed twice and not kept
    batch_size: int = 8  # pairs
    max_new_tokens: int = 64  # length of the answers that make the pairs
    # Codes move on the quantized model's own frozen grid; or the moved weights are quantized anew; or the codes stay
    # and the update is kept beside them, quantized, or as a low-rank one in 16 bits.
    quant_mode: Literal["requant_grid", "requant_fp", "delta_quant", "adapter"] = "requant_grid"
    # Whether a training step computes with what would be exported, or with a dense twin that is rounded at the end.
    rounded: Literal["in_training", "at_export"] = "in_training"
    exported: bool = True  # False: the trained weights are written as they are, to see what export costs

    def limits(self) -> list[tuple[str, bool, str]]:
        several = isinstance(self.lr, list)
        return [
            ("pair_classes", self._known_classes(), f"a list of some of {', '.join(CLASSES.values())} is needed"),
            ("tau", 0 <= self.tau <= 1, "a share of the weights, from 0 to 1, is needed"),
            ("refresh_every", self.refresh_every > 0, "a number of steps, or a share of them below 1, is needed"),
            ("steps", self.steps > 0, "at least one step is needed"),
            ("batch_size", self.batch_size > 0, "at least one pair is needed"),
            ("snip_examples", self.snip_examples > 0, "at least one answer is needed"),
            ("max_new_tokens", self.max_new_tokens > 0, "at least one token is needed"),
            ("beta", self.beta > 0, "a number above 0 is needed"),
            ("lr", all(rate >= 0 for rate in (self.lr if several else [self.lr])), "rates from 0 on are needed"),
            ("rank", self.rank >= 0, "a number from 0 on is needed"),
            ("rank", self.rank > 0 or self.quant_mode != "adapter", "quant_mode adapter needs a low-rank update"),
            (
                "lr_unit",
                not self.rank or self.lr_unit == "weight",
                "a low-rank update has no cells: say weight",
            ),
            ("mask_mode", self._factored_or_not(), "an adapter cannot hold a masked product: rowcol_mean or any"),
            ("start", self._in_the_centre(), "centre is needed where weights are not rounded to the cell's own grid"),
            ("rounded", self._rounds(), "at_export is a way of requant_grid"),
            ("lr", not several or bool(self.lr), "at least one learning rate is needed"),
            ("validation", bool(self.validation) == several, "prompts are kept for validation where `lr` is a list"),
        ]

    def _known_classes(self) -> bool:
        asked = self.pair_classes
        return isinstance(asked, list) and bool(asked) and all(name in CLASSES.values() for name in asked)

    def _factored_or_not(self) -> bool:
        return self.quant_mode != "adapter" or self.mask_mode != "product" or self.tau == 1

    def _in_the_centre(self) -> bool:
        return self.quant_mode == "requant_grid" or self.start == "centre"

    def _rounds(self) -> bool:
        return self.rounded == "in_training" or self.quant_mode == "requant_grid"

    @property
    def refresh_steps(self) -> int:
        """Steps from one mask to the next."""
        share = self.refresh_every < 1
        return max(1, math.ceil(self.refresh_every * self.steps if share else self.refresh_every))
