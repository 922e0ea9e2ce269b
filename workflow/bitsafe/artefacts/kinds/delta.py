"""Linear layers with a second, quantized summand: Q⁰ + Quant(M ⊙ Δ) of Q-resafe (Chen et al. 2025, Eq. 2)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.kinds import kind_of
from bitsafe.artefacts.kinds.over import OverBase, base_settings
from bitsafe.artefacts.kinds.sparse import index_of, mask_of
from bitsafe.artefacts.kinds.table import packed, unpacked
from bitsafe.artefacts.layers import QuantizedLinear

PREFIX = "delta_"


@dataclass(frozen=True)
class DeltaLinear(OverBase):
    """base: the cell's layer as it was. held: bool [out, in], the entries that have a summand. delta: the summands.

    Outside `held` delta is the code of zero, which is a level of every grid here; those codes are not stored.
    """

    held: Tensor
    delta: QuantizedLinear

    @property
    def codes(self) -> Tensor:
        """Of the base."""
        return self.base.codes

    @property
    def code_bits(self) -> float:
        return self.base.code_bits + int(self.held.sum()) * self.delta.grid.bits

    @property
    def extra_bits(self) -> float:
        index = sum(part.numel() * part.element_size() * 8 for part in index_of(self.held).values())
        return self.base.extra_bits + self.delta.extra_bits + index

    def weight(self) -> Tensor:
        return self.base.weight() + self.delta.weight()

    def side(self) -> list[Tensor]:
        return [*self.base.side(), *self.delta.side()]

    def fault(self) -> str | None:
        if tuple(self.delta.shape) != tuple(self.base.shape):
            return f"summands {tuple(self.delta.shape)} on weights {tuple(self.base.shape)}"
        return self.base.fault() or self.delta.fault() or super().fault()


def settings_of(layer: DeltaLinear) -> dict[str, Any]:
    """What an artefact's config says of such layers: the kinds of the two summands, and their settings."""
    of_delta = {f"{PREFIX}{key}": value for key, value in base_settings(layer.delta).items()}
    return base_settings(layer.base) | of_delta


def stored(layer: DeltaLinear) -> dict[str, Tensor]:
    """The base's tensors; those of delta behind `delta_`, its codes in one row and those in `held` alone; the index."""
    settings, held = settings_of(layer), layer.held
    parts = kind_of(settings["base"]).stored(layer.base)
    delta = kind_of(settings["delta_base"]).stored(layer.delta, lambda codes, bits: packed(codes[held][None], bits))
    return parts | {f"{PREFIX}{name}": part for name, part in delta.items()} | index_of(held)


def restored(name: str, parts: dict[str, Tensor], settings: dict[str, Any]) -> DeltaLinear:
    """settings: as `settings_of` says."""
    base = kind_of(settings["base"]).restored(name, parts, settings["base_settings"])
    own = {key.removeprefix(PREFIX): part for key, part in parts.items() if key.startswith(PREFIX)}
    held = mask_of(parts, base.shape)

    def unpack(words: Tensor, bits: int, shape: tuple[int, int]) -> Tensor:
        codes = torch.zeros(shape, dtype=torch.uint8)
        codes[held] = unpacked(words, bits, (1, int(held.sum())))[0]
        return codes

    delta = kind_of(settings["delta_base"]).restored(name, own, settings["delta_base_settings"], unpack)
    zero = delta.grid.nearest(torch.zeros(delta.shape))
    return DeltaLinear(name, base, held, replace(delta, codes=torch.where(held, delta.codes, zero)))
