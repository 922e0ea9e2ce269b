"""A linear layer that computes with a sum of codewords, and whose codebooks and scale can be trained."""

from typing import Any

import torch
from torch import Tensor, nn

from bitsafe.artefacts.additive import AdditiveLinear, decode, decode_gradient
from bitsafe.artefacts.formats.aqlm import code_dtype
from bitsafe.quantizers.additive.fit import Fit


class AdditiveModule(nn.Module):
    """y = x Ŵᵀ + bias. The codes are fixed; codebooks, scales and bias are parameters."""

    def __init__(self, fit: Fit, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("codes", fit.codes.to(code_dtype((fit.codebooks.shape[1] - 1).bit_length())))
        self.codebooks, self.scales = nn.Parameter(fit.codebooks), nn.Parameter(fit.scales)
        self.bias = None if bias is None else nn.Parameter(bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        out = _Product.apply(x, self.codes, self.codebooks, self.scales)
        return out if self.bias is None else out + self.bias

    def layer(self, name: str, dtype: torch.dtype) -> AdditiveLinear:
        """The layer as an artefact stores it, on the CPU."""
        codebooks, scales = (part.detach().to("cpu", dtype) for part in (self.codebooks, self.scales))
        return AdditiveLinear(name, self.codes.cpu(), codebooks, scales)


class _Product(torch.autograd.Function):
    """x Ŵᵀ that decodes Ŵ again on the way back: a whole model is trained without its weights ever held at once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, codebooks: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(x, codes, codebooks, scales)
        return x @ decode(codes, codebooks, scales).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, codes, codebooks, scales = ctx.saved_tensors
        of_x = gradient @ decode(codes, codebooks, scales) if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[2:]):
            return of_x, None, None, None
        of_weight = gradient.flatten(0, -2).T @ x.flatten(0, -2)
        return of_x, None, *decode_gradient(codes, codebooks, scales, of_weight)
