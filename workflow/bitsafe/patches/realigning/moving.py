"""What moves of a quantized layer while its block is realigned: its codes, or an adapter beside them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from bitsafe.artefacts.layers import Layer, moved
from bitsafe.patches.realigning.settings import RealignSettings
from bitsafe.patches.training.position import Factored, Free
from bitsafe.patches.training.rounding import OnCodes, Unrounded


class Moving(nn.Module):
    """Stands for the weight of a linear layer: what the artefact would hold of the layer, adapter included.

    Before the first step that is the quantized weight itself. `units` are one step's length at learning rate 1.
    """

    def __init__(self, layer: Layer, settings: RealignSettings, generator: torch.Generator) -> None:
        super().__init__()
        adapter = settings.quant_mode == "adapter"
        self.layer, self.rounding = layer, (Unrounded if adapter else OnCodes)(layer)
        start = self.rounding.start(generator)
        self.position = Factored(start, settings.rank, settings.alpha, generator) if adapter else Free(start)
        self.units = torch.tensor(1.0) if adapter else self.rounding.width()
        self.everything = torch.ones(start.shape, dtype=torch.bool, device=start.device)

    def forward(self, original: Tensor) -> Tensor:
        """The weight now, [out, in], with a gradient to what moves; `original` only says in which dtype."""
        weight = self.rounding.weight(self.position(), self.everything)
        own = self.layer.adapter
        return (weight if own is None else weight + own.delta()).to(original.dtype)

    def exported(self) -> Layer:
        """The layer to write, on the CPU."""
        return moved(self.rounding.exported(self.position, self.everything), "cpu")


@contextmanager
def moving(
    linears: dict[str, nn.Linear], layers: dict[str, Layer], settings: RealignSettings, generator: torch.Generator
) -> Iterator[dict[str, Moving]]:
    """Let the weights of `linears` move within the block; afterwards each computes with what is exported of it.

    The modules stay, and with them the hooks by which a method rounds activations.
    """
    made = {}
    for name, linear in linears.items():
        made[name] = Moving(moved(layers[name], linear.weight.device), settings, generator)
        register_parametrization(linear, "weight", made[name])
    try:
        yield made
    finally:
        for name, linear in linears.items():
            remove_parametrizations(linear, "weight", leave_parametrized=False)
            linear.weight.data.copy_(made[name].exported().dense())
