"""One layer's codes, codebooks and scales on ‖(W − Ŵ)X‖² (Egiazarian et al. 2024, §3.2, phases 1 and 2)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.additive import decode, decode_gradient
from bitsafe.quantizers.additive.layouts import Layout
from bitsafe.quantizers.additive.search import beam_search, output_errors
from bitsafe.quantizers.additive.start import residual_kmeans

BETAS, EPSILON = (0.9, 0.95), 1e-15  # the objective's gradients are small at 8 bits


@dataclass(frozen=True)
class FitSettings:
    """Parameters of the fit, as a row of the method table names them.

    dampening: a share of the gram's mean diagonal added to it, as in GPTQ; the paper adds none, but with fewer tokens
    than inputs weights would wander where no token looks. adam_lr: relative to the size of what it moves.
    tolerance: a round that lowers the error by a smaller share is the last.
    """

    beam: int = 4
    kmeans_steps: int = 10
    adam_steps: int = 30
    adam_lr: float = 0.02
    max_rounds: int = 4
    tolerance: float = 0.01
    dampening: float = 0.01

    @classmethod
    def of(cls, params: dict[str, Any]) -> "FitSettings":
        fields = cls.__dataclass_fields__.items()
        given = {key: type(field.default)(params[key]) for key, field in fields if key in params}
        return cls(**given)


@dataclass(frozen=True)
class Fit:
    """codes: int64 [out, in/g, K]. codebooks: [K, 2^B, g]. scales: [out]. errors: relative, after start and rounds."""

    codes: Tensor
    codebooks: Tensor
    scales: Tensor
    errors: list[float]


def fit(weight: Tensor, gram: Tensor, layout: Layout, settings: FitSettings, seed: int) -> Fit:
    """Fit one layer: k-means, then Adam over codebooks and scales and beam search over codes in turn.

    weight: [out, in]. gram: X Xᵀ / tokens [in, in]. Both on one device. The errors are (W−Ŵ)G(W−Ŵ)ᵀ / W G Wᵀ.
    """
    weight, gram = weight.detach().float(), dampened(gram.float(), settings.dampening)
    codes, codebooks, scales = start(weight, layout, settings.kmeans_steps, seed)
    whole = output_errors(weight, torch.zeros_like(weight), gram).sum().clamp(min=torch.finfo(torch.float32).tiny)
    now = output_errors(weight, decode(codes, codebooks, scales), gram).sum() / whole
    errors = [float(now)]
    for _ in range(settings.max_rounds):
        codebooks, scales = adam(weight, gram, codes, codebooks, scales, settings)
        codes, found = beam_search(weight, gram, codes, codebooks, scales, settings.beam)
        errors.append(float(found.sum() / whole))
        if errors[-1] >= (1 - settings.tolerance) * errors[-2]:
            break
    codebooks, scales = adam(weight, gram, codes, codebooks, scales, settings)
    errors.append(float(output_errors(weight, decode(codes, codebooks, scales), gram).sum() / whole))
    return Fit(codes, codebooks, scales, errors)


def dampened(gram: Tensor, share: float) -> Tensor:
    """The gram with a share of its mean diagonal added to the diagonal."""
    return gram + share * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)


def start(weight: Tensor, layout: Layout, iterations: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, codebooks and scales of plain residual k-means on the rows of the weight, each at one size.

    Scales are about 1 (a row's size over the mean row's), so codebooks have the size of weights.
    """
    sizes = weight.square().mean(1).sqrt()
    scales = torch.where(sizes > 0, sizes / sizes.mean().clamp(min=torch.finfo(torch.float32).tiny), 1.0)
    points = (weight / scales.unsqueeze(1)).unflatten(1, (-1, layout.group))
    draw = torch.Generator().manual_seed(seed)
    codes, codebooks = residual_kmeans(
        points.flatten(0, 1), layout.codebooks, 2**layout.code_bits, iterations, generator=draw
    )
    return codes.unflatten(0, points.shape[:2]), codebooks, scales


def adam(
    weight: Tensor, gram: Tensor, codes: Tensor, codebooks: Tensor, scales: Tensor, settings: FitSettings
) -> tuple[Tensor, Tensor]:
    """Codebooks and scales after `adam_steps` steps of Adam on the objective, codes fixed; the best that it came by."""
    # each moves relative to its own size: later codebooks are smaller, and so are some outputs by far
    sizes = codebooks.square().mean((1, 2), keepdim=True).sqrt()
    parts = [torch.where(sizes > 0, codebooks / sizes, 0.0), torch.ones_like(scales)]
    optimizer = torch.optim.Adam(parts, lr=settings.adam_lr, betas=BETAS, eps=EPSILON)
    best, lowest = (codebooks, scales), torch.inf
    for step in range(settings.adam_steps + 1):
        books, scale = parts[0] * sizes, parts[1] * scales
        rest = weight - decode(codes, books, scale)
        slope = rest @ gram
        if (error := float((slope * rest).sum())) < lowest:
            best, lowest = (books, scale), error
        if step < settings.adam_steps:
            of_books, of_scale = decode_gradient(codes, books, scale, -2 * slope)
            parts[0].grad, parts[1].grad = of_books * sizes, of_scale * scales
            optimizer.step()
    return best
