"""Linear layers with some weights in 16 bits, wherever they stand, and the others as another layer rounds them.

This is the dense-and-sparse storage of SpQR (Dettmers et al. 2023, arXiv 2306.03078, §4) and SqueezeLLM (Kim et al.
2023, arXiv 2306.07629, §4.2), but for the codes of kept weights: nothing needs them, so they are not stored.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.grids import bits_of
from bitsafe.artefacts.kinds import kind_of
from bitsafe.artefacts.kinds.outliers import OutlierLinear, rounded_columns
from bitsafe.artefacts.kinds.over import OverBase, base_settings
from bitsafe.artefacts.kinds.sparse import index_of, mask_of
from bitsafe.artefacts.kinds.table import packed, unpacked
from bitsafe.artefacts.layers import QuantizedLinear

VALUES = "kept_values"


@dataclass(frozen=True)
class MixedLinear(OverBase):
    """base: rounds the weights that are not kept; what its codes say of kept ones means nothing.

    kept: bool [out, in]. values: [kept], their weights row by row, in the dtype they are stored in.
    """

    kept: Tensor
    values: Tensor

    @property
    def code_bits(self) -> float:
        """Of the codes that are stored: those of weights that are not kept."""
        return int((~_of_codes(self.kept, self.base.outliers())).sum()) * self.base.grid.bits

    @property
    def value_bits(self) -> int:
        return self.values.numel() * bits_of(self.values)

    @property
    def index_bits(self) -> int:
        return sum(part.numel() * bits_of(part) for part in index_of(self.kept).values())

    @property
    def extra_bits(self) -> float:
        return self.base.extra_bits + self.value_bits + self.index_bits

    def weight(self) -> Tensor:
        whole = self.base.weight()
        whole[self.kept] = self.values.float()
        return whole

    def side(self) -> list[Tensor]:
        return [*self.base.side(), self.values]

    def fault(self) -> str | None:
        if int(self.kept.sum()) != len(self.values):
            return f"{len(self.values)} weights for {int(self.kept.sum())} kept places"
        return self.base.fault() or super().fault()


def keep(base: QuantizedLinear | OutlierLinear, kept: Tensor, weight: Tensor, dtype: torch.dtype) -> MixedLinear:
    """A layer with the entries `kept` (bool [out, in]) taken from `weight` [out, in], in `dtype`.

    Outlier columns are 16-bit numbers already: there a kept weight takes the place of what they hold and costs nothing.
    """
    weight = weight.to(dtype)
    if (columns := base.outliers()) is not None:
        base = replace(base, kept=torch.where(kept[:, columns], weight[:, columns].to(base.kept.dtype), base.kept))
        kept = kept.clone()
        kept[:, columns] = False
    return MixedLinear(base.name, base, kept, weight[kept])


def settings_of(layer: MixedLinear) -> dict[str, Any]:
    """What an artefact's config says of such layers."""
    return base_settings(layer.base)


def stored(layer: MixedLinear) -> dict[str, Tensor]:
    """The base's tensors, its `codes` in one row without those of kept weights; kept_values; the index of the kept."""
    free = ~_of_codes(layer.kept, layer.base.outliers())
    parts = kind_of(settings_of(layer)["base"]).stored(layer.base, lambda codes, bits: packed(codes[free][None], bits))
    return parts | {VALUES: layer.values} | index_of(layer.kept)


def restored(name: str, parts: dict[str, Tensor], settings: dict[str, Any]) -> MixedLinear:
    """settings: `base`, the kind of the bases, and `base_settings`, theirs."""
    kept = mask_of(parts, tuple(parts["shape"].tolist()))
    free = ~_of_codes(kept, parts.get("columns"))

    def unpack(words: Tensor, bits: int, shape: tuple[int, int]) -> Tensor:
        codes = torch.zeros(shape, dtype=torch.uint8)
        codes[free] = unpacked(words, bits, (1, int(free.sum())))[0]
        return codes

    base = kind_of(settings["base"]).restored(name, parts, settings["base_settings"], unpack)
    return MixedLinear(name, base, kept, parts[VALUES])


def _of_codes(kept: Tensor, outliers: Tensor | None) -> Tensor:
    """The columns of a mask [out, in] that have codes: outlier columns have none."""
    return kept if outliers is None else kept[:, rounded_columns(outliers, kept.shape[1])]
