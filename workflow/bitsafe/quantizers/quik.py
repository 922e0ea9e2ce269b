"""QUIK (Ashkboos et al. 2023, arXiv 2310.09259): GPTQ with outlier columns in 16 bits, activations rounded too.

A layer's outliers are the inputs with the largest activations in calibration (§3.2). Their columns are rounded last,
that is not at all, so they take up the errors of all others. The other weights have one symmetric scale a row, its
range clipped by a linear search over the squared error. The other inputs are rounded a token at a time, asymmetric, at
the bits of the weights, except the down-projections, whose inputs vary most: 8 bits for both (§3.2).

At 3 and 2 bits, and with `activations: false`, only weights are rounded, all of them at the cell's bits: nothing is
then left that the 8 bits of the down-projections would save.
"""

from dataclasses import dataclass
from math import floor
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.activations import Activations, Rule, write_activations
from bitsafe.artefacts.checkpoint import storage_dtype
from bitsafe.artefacts.formats.own import write_own
from bitsafe.artefacts.grids import AffineGrid, affine_grid
from bitsafe.artefacts.kinds.outliers import OutlierLinear, rounded_columns
from bitsafe.quantizers.base import QuantizeJob, require_bits, require_params, require_value
from bitsafe.quantizers.shared.blocks import Block, Statistics, walk
from bitsafe.quantizers.shared.calibration import prepare
from bitsafe.quantizers.shared.second_order import inverse_factor, round_columns

VERSION = 1
BITS = (8, 4, 3, 2)
ACTIVATION_BITS = (8, 4)  # at which the paper rounds activations
WIDE = 8  # bits of the layers that `eight_bit` names
MULTIPLE = 8  # of which the number of outlier columns is one


@dataclass(frozen=True)
class Settings:
    """Parameters of the method, as its row names them.

    outliers: share of the input columns. clip_search: how many ranges to try, each a hundredth narrower than the one
    before; 0 and 1 take the whole range. eight_bit: layers by the last part of their names.
    """

    outliers: float = 1 / 16
    clip_search: int = 80
    activations: bool = True
    eight_bit: tuple[str, ...] = ("down_proj",)
    dampening: float = 0.01

    @classmethod
    def of(cls, params: dict[str, Any]) -> "Settings":
        own = {key: value for key, value in params.items() if key != "samples"}
        wide = own.get("eight_bit", cls.eight_bit)
        made = cls(**(own | {"eight_bit": tuple(wide)}))
        require_value(made.outliers < 1, "outliers", made.outliers, "a share from 0 to below 1")
        return made

    def rounds_activations(self, bits: int) -> bool:
        return self.activations and bits in ACTIVATION_BITS

    def code_bits(self, name: str, bits: int) -> int:
        """Bits of the codes of a layer in a cell of `bits`."""
        wide = self.rounds_activations(bits) and name.rpartition(".")[2] in self.eight_bit
        return WIDE if wide else bits


def quantize(job: QuantizeJob) -> dict:
    """Write an artefact of our own layout, kind `outliers`. params: those of Settings, and samples."""
    require_bits(job, BITS)
    require_params(job, (*Settings.__dataclass_fields__, "samples"))
    settings, dtype = Settings.of(job.params), storage_dtype(job.source)
    ready, layers = prepare(job), []
    for block in walk(ready.model, ready.batches, set(ready.names), "quik"):
        layers += _quantize_block(block, job, dtype)
    write_own(job.out, job.source, "outliers", layers, ready.others(), {"bits": job.bits})
    if settings.rounds_activations(job.bits):
        wide = {part: Rule(WIDE, symmetric=False) for part in settings.eight_bit}
        write_activations(job.out, Activations(Rule(job.bits, symmetric=False), wide))
    counts = {layer.name.rpartition(".")[2]: len(layer.columns) for layer in layers}
    return ready.facts | {"weight_only": not settings.rounds_activations(job.bits), "outlier_columns": counts}


def _quantize_block(block: Block, job: QuantizeJob, dtype: torch.dtype) -> list[OutlierLinear]:
    """Fit every layer of a block to what enters it, and leave the rounded weights in it."""
    layers, seen = [], block.statistics()
    for name, module in block.linears.items():
        layer = _fit(name, module.weight.detach(), seen[name], job.bits, Settings.of(job.params), dtype)
        module.weight.data.copy_(layer.weight())
        layers.append(layer)
    return layers


def fit_layer(
    name: str,
    weight: Tensor,
    gram: Tensor,
    bits: int,
    params: dict[str, Any],
    seed: int = 0,
    peak: Tensor | None = None,
) -> OutlierLinear:
    """One layer by itself; scales and outliers in float16. weight: [out, in]; gram: X Xᵀ / tokens, [in, in].

    peak: largest |x| of each input, [in]; where nobody measured it the root of the mean square stands in for it.
    seed: nothing is drawn here.
    """
    peak = gram.diagonal().sqrt() if peak is None else peak
    return _fit(name, weight, Statistics(gram, peak), bits, Settings.of(params), torch.float16)


def _fit(
    name: str, weight: Tensor, seen: Statistics, bits: int, settings: Settings, dtype: torch.dtype
) -> OutlierLinear:
    columns = outlier_columns(seen.peak, settings.outliers)
    rounded = rounded_columns(columns, weight.shape[1])
    order = torch.cat([rounded, columns.long()]).to(weight.device)  # outliers last: they take up what rounding costs
    weight, gram = weight[:, order], seen.gram.to(weight.device)[order][:, order]
    grid = clipped_grid(weight[:, : len(rounded)], settings.code_bits(name, bits), settings.clip_search, dtype)
    codes, kept = round_columns(weight, inverse_factor(gram, settings.dampening, name), grid, len(rounded))
    grid = AffineGrid(grid.bits, grid.group_size, grid.scale.cpu())
    return OutlierLinear(name, codes.cpu(), grid, columns, kept.to(dtype).cpu(), bits)


def outlier_columns(peak: Tensor, share: float) -> Tensor:
    """The inputs with the largest magnitudes, ascending, int32 [k]: k is `share` of them to the nearest multiple of 8.

    Of equal ones the first are taken; one column at least is left to round.
    """
    count = min(MULTIPLE * floor(len(peak) * share / MULTIPLE + 0.5), len(peak) - 1)
    chosen = peak.cpu().argsort(descending=True, stable=True)[:count]
    return chosen.sort().values.to(torch.int32)


def clipped_grid(weight: Tensor, bits: int, steps: int, dtype: torch.dtype) -> AffineGrid:
    """The symmetric grid of each row of a weight [out, in] that rounds it with the least squared error.

    Tried are `steps` ranges, 1, 0.99, 0.98 … of the row's own; of equally good ones the widest is taken.
    """
    whole = affine_grid(weight, bits, -1, symmetric=True, dtype=dtype)
    best = torch.full_like(whole.scale, torch.inf, dtype=torch.float32)
    scale = whole.scale
    for step in range(steps if steps > 1 else 0):
        tried = AffineGrid(bits, whole.group_size, (whole.scale.float() * (1 - step / 100)).to(dtype))
        error = (tried.dequantize(tried.nearest(weight)) - weight.float()).square().sum(1, keepdim=True)
        better = (error < best) & (tried.scale > 0)
        best, scale = torch.where(better, error, best), torch.where(better, tried.scale, scale)
    return AffineGrid(bits, whole.group_size, scale)
