"""How a gradient becomes an update: the direction of a step at learning rate 1."""

from collections.abc import Iterable

from torch import Tensor

from bitsafe.patches.shared.maths import Moments, adam_direction, root_mean_square
from bitsafe.patches.training.state import named, under


class GradientStep:
    """Alg. 1's gradient step, W ← W − η ∂L/∂W, with the gradient in units of its first root mean square.

    That unit, taken once over all quantized weights and whatever the mask, makes one learning rate fit models and β of
    any scale; the gradient still shrinks as the pairs are learnt, and the patch comes to rest by itself. A few weights
    carry most of the gradient, and these a SNIP mask finds.
    """

    def __init__(self) -> None:
        self.unit: float | None = None

    def calibrate(self, gradients: Iterable[Tensor]) -> None:
        if self.unit is None:
            self.unit = root_mean_square(gradients) or 1.0

    def direction(self, _name: str, gradient: Tensor) -> Tensor:
        return gradient / self.unit

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {}, {"unit": self.unit}

    def restore(self, tensors: dict[str, Tensor], numbers: dict) -> None:
        self.unit = numbers["unit"]


class AdamStep:
    """AdamW without decay, the optimiser of the released code; two moments a weight."""

    def __init__(self) -> None:
        self.moments: dict[str, Moments] = {}

    def calibrate(self, gradients: Iterable[Tensor]) -> None:
        """Adam needs no unit: its steps do not depend on the gradient's scale."""

    def direction(self, name: str, gradient: Tensor) -> Tensor:
        moments = self.moments.setdefault(name, Moments.zeros(gradient))
        moments.first, moments.second = moments.first.to(gradient.device), moments.second.to(gradient.device)
        return adam_direction(gradient, moments)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors = named("first.", {name: found.first for name, found in self.moments.items()})
        tensors |= named("second.", {name: found.second for name, found in self.moments.items()})
        return tensors, {"counts": {name: found.count for name, found in self.moments.items()}}

    def restore(self, tensors: dict[str, Tensor], numbers: dict) -> None:
        first, second = under("first.", tensors), under("second.", tensors)
        self.moments = {name: Moments(first[name], second[name], count) for name, count in numbers["counts"].items()}


RULES = {"sgd": GradientStep, "adamw": AdamStep}
