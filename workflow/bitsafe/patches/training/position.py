"""Where the weights of a patched layer are before they are rounded, and what a step may move of them."""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from bitsafe.patches.shared.maths import Mask
from bitsafe.patches.training.state import into


class Position(nn.Module):
    """A trainable float32 matrix [out, in]; `trained` are its parameters by name."""

    trained: dict[str, nn.Parameter]

    @abstractmethod
    def forward(self) -> Tensor:
        """The matrix now, differentiable."""

    @abstractmethod
    def hold(self, mask: Mask) -> Tensor:
        """From now on only what `mask` names may move; which weights that moves, with what moved before, [out, in]."""

    @abstractmethod
    def movable(self, part: str) -> Tensor:
        """Which entries of a parameter an update may move."""

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on."""
        return {**self.trained, **self.masks()}

    @abstractmethod
    def masks(self) -> dict[str, Tensor]:
        """What `hold` has set."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `state`."""
        for name, tensor in tensors.items():
            if name in self.trained:
                into(self.trained[name], tensor)
            else:
                setattr(self, name, tensor.to(next(self.parameters()).device))


class Free(Position):
    """Every weight for itself. start: [out, in]."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.latent = nn.Parameter(start, requires_grad=False)
        self.trained = {"latent": self.latent}
        self.mask = torch.ones((), dtype=torch.bool, device=start.device)

    def forward(self) -> Tensor:
        return self.latent

    def hold(self, mask: Mask) -> Tensor:
        self.mask = mask.weights
        return mask.weights

    def masks(self) -> dict[str, Tensor]:
        return {"mask": self.mask}

    def movable(self, part: str) -> Tensor:
        return self.mask


class Factored(Position):
    """start + (α/r) B A (Hu et al. 2021, eq. 3): A [r, in] starts at random, B [out, r] at zero.

    With a mask on the product (Eq. 2) the sum is start + M ⊙ (α/r) B A, and what has left the mask falls back to its
    start. Masks on the factors (Alg. 1, l. 10-12) bound their updates; columns of A that no mask has held yet are zero,
    so what moves lies where a row and a column cross that some mask has held.
    """

    def __init__(self, start: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.start, self.scaling = start, alpha / rank
        bound = math.sqrt(1 / start.shape[1])  # peft's initialisation: Kaiming's uniform law with a = √5
        self.first = (2 * torch.rand(rank, start.shape[1], generator=generator) - 1).to(start.device) * bound
        self.A = nn.Parameter(self.first.clone(), requires_grad=False)
        self.B = nn.Parameter(torch.zeros(start.shape[0], rank, device=start.device), requires_grad=False)
        self.trained = {"A": self.A, "B": self.B}
        everything = torch.ones((), dtype=torch.bool, device=start.device)
        self.product, self.outputs, self.inputs = everything, everything, everything
        # rows and columns that some mask has held
        self.seen_outputs, self.seen_inputs = everything, everything

    def forward(self) -> Tensor:
        return self.start + self.delta()

    def delta(self) -> Tensor:
        """(α/r) B A under the mask, [out, in]."""
        return self.scaling * (self.B @ self.A) * self.product

    def hold(self, mask: Mask) -> Tensor:
        if mask.inputs is None:
            self.product = mask.weights
            return mask.weights
        if self.seen_inputs.ndim == 0:  # the first mask
            self.A.data.zero_()
            self.seen_outputs, self.seen_inputs = torch.zeros_like(mask.outputs), torch.zeros_like(mask.inputs)
        entering = mask.inputs & ~self.seen_inputs
        self.A.data[:, entering] = self.first[:, entering]
        self.outputs, self.inputs = mask.outputs[:, None], mask.inputs
        self.seen_outputs, self.seen_inputs = self.seen_outputs | mask.outputs, self.seen_inputs | mask.inputs
        return self.seen_outputs[:, None] & self.seen_inputs

    def masks(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("product", "outputs", "inputs", "seen_outputs", "seen_inputs")}

    def movable(self, part: str) -> Tensor:
        return self.inputs if part == "A" else self.outputs
