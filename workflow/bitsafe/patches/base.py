"""What a patch is given, and its parameters."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from bitsafe.errors import UserError

# (model, tokenizer, prompts, max_new_tokens=…) -> one answer a prompt
Generate = Callable[..., list[str]]
Kind = TypeVar("Kind")


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


@dataclass(frozen=True)
class Settings:
    """Parameters of a patch; a row of patches.yaml sets them by these names."""

    prompts: int | None = None  # how many of the patch set are used (all if absent); chosen before the patch starts
    tau: float = 0.2  # share of the weights an update may move
    mask_scope: Literal["tensor", "global"] = "tensor"  # the share is taken within each layer, or over all layers
    refresh_every: int = 10  # K: the mask is computed anew every so many steps
    snip_examples: int = 64  # preferred answers scored at each refresh
    beta: float = 0.1  # β of DPO, 1/nats
    optimizer: Literal["sgd", "adamw"] = "sgd"  # Alg. 1 has a gradient step, the paper's released code AdamW
    lr: float = 0.003  # in units of `lr_unit` a step, for a weight with the typical (sgd) or a steady (adamw) gradient
    lr_unit: Literal["cell", "weight"] = "cell"  # the width of the weight's own cell, or the weight's unit
    start: Literal["uniform", "centre"] = "uniform"  # where in its cell a latent weight starts
    steps: int = 30
    batch_size: int = 8  # pairs
    max_new_tokens: int = 64  # length of the answers that make the pairs
    quant_mode: Literal["requant_grid"] = "requant_grid"  # codes move on the quantized model's own frozen grid

    @classmethod
    def read(cls, params: dict[str, Any]) -> "Settings":
        """The settings of a row; see `read_settings`."""
        return read_settings(cls, params)


def read_settings(cls: type[Kind], params: dict[str, Any]) -> Kind:
    """A dataclass of settings; an unknown name or choice is a UserError that names the closest known one."""
    known = {field.name for field in fields(cls)}
    for name, value in params.items():
        if name not in known:
            raise UserError(f"patches: no parameter {name!r}{_closest(name, known)}")
        choices = get_args(get_type_hints(cls)[name])
        if choices and isinstance(choices[0], str) and value not in choices:
            raise UserError(f"patches: {name}: {value!r} is not one of {', '.join(choices)}")
    return cls(**params)


def _closest(name: str, known: set[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"
