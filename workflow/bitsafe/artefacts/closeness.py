"""How far the weights of an artefact are from those they stand for: what tells a coarse quantizer from a broken one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from bitsafe.artefacts.layers import Layer

# At most so much in any layer, by bits. The worst layer of any method on the toy had 0.08 (additive codebooks), 0.18,
# 0.34 and 0.59; codes drawn at random, or given to other rows, have 0.97 at any bits.
LIMITS = {8: 0.25, 4: 0.45, 3: 0.65, 2: 0.88}
ROUNDS = 3  # of fitting rows and columns in turn


def worst_layer(layers: Mapping[str, Layer], source: Mapping[str, Tensor]) -> tuple[str, float]:
    """The layer whose weights are furthest from the source's, and how far (`weight_error`); adapters are left out."""
    errors = {name: weight_error(layer.weight(), source[f"{name}.weight"].float()) for name, layer in layers.items()}
    return max(errors.items(), key=lambda item: item[1])


def weight_error(found: Tensor, wanted: Tensor) -> float:
    """‖Ŵ − diag(r) W diag(c)‖ / ‖Ŵ‖ with the best row scales r and column scales c; both [out, in].

    Scales are fitted because a method may fold some into its neighbours (AWQ): then Ŵ stands for W with its columns and
    rows scaled. Weights that have nothing to do with each other are 1 apart, however few bits they have.
    """
    rows = torch.ones(found.shape[0], 1)
    for _ in range(ROUNDS):
        columns = _fit(found, wanted * rows, 0)
        rows = _fit(found, wanted * columns, 1)
    size = float(found.norm())
    return float((found - rows * wanted * columns).norm()) / size if size else 1.0


def _fit(found: Tensor, base: Tensor, axis: int) -> Tensor:
    """The scales along `axis` that bring `base` nearest to `found`."""
    return (found * base).sum(axis, keepdim=True) / base.square().sum(axis, keepdim=True).clamp(min=1e-30)
