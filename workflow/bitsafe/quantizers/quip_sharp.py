"""QuIP# (Tseng et al. 2024, arXiv 2402.04396): random rotations, then E8 lattice points chosen with feedback.

Each layer is rotated on both sides until its entries look Gaussian (quantizers.lattice.hadamard), and vectors of eight
weights are rounded to points of a lattice codebook (lattice.codec), each correcting for the error of those before it
(lattice.ldlq). The paper's fine-tuning of norms and signs after rounding is left out.
"""

from zlib import crc32

import torch
from torch import Tensor

from bitsafe.artefacts.formats.own import write_own
from bitsafe.artefacts.kinds.lattice import LatticeLinear
from bitsafe.errors import UserError
from bitsafe.quantizers.base import QuantizeJob, linears, require_bits, require_params
from bitsafe.quantizers.lattice.codec import BITS, DIMENSION, decode, encode, unit_scale
from bitsafe.quantizers.lattice.hadamard import random_signs, rotate_matrix
from bitsafe.quantizers.lattice.ldlq import damped, ldlq
from bitsafe.quantizers.shared.blocks import Block, walk
from bitsafe.quantizers.shared.calibration import prepare

VERSION = 1
PARAMS = ("samples", "dampening")
DAMPENING = 0.01  # a share of the mean diagonal of the Hessian, as in GPTQ


def quantize(job: QuantizeJob) -> dict:
    """Write an artefact in the `lattice` layout. params: samples, dampening."""
    require_bits(job, BITS)
    require_params(job, PARAMS)
    _require_vectors(job)
    calibration = prepare(job)
    layers: list[LatticeLinear] = []
    for block in walk(calibration.model, calibration.batches, set(calibration.names), "quip_sharp"):
        layers += _quantize_block(block, calibration.source, job)
    write_own(job.out, job.source, "lattice", layers, calibration.others(), {"codebook": "E8P"})
    return calibration.facts | {"layers": len(layers)}


def _quantize_block(block: Block, source: dict[str, Tensor], job: QuantizeJob) -> list[LatticeLinear]:
    layers = []
    for name, gram in block.grams().items():
        weight = source[f"{name}.weight"].to(block.device)
        layer = fit_layer(name, weight, gram, job.bits, job.params, job.seed)
        block.linears[name].weight.data.copy_(layer.weight())
        layers.append(layer)
    return layers


def fit_layer(name: str, weight: Tensor, gram: Tensor, bits: int, params: dict, seed: int) -> LatticeLinear:
    """Quantize one layer. weight: [out, in]. gram: X Xᵀ / tokens of its inputs, float32 [in, in].

    The signs come from the seed and the layer's name. The scales are those of Gaussian weights with this layer's root
    mean square, which the rotations make it.
    """
    generator = torch.Generator().manual_seed(crc32(f"{seed} {name}".encode()))
    rows, columns = (random_signs(size, generator) for size in weight.shape)
    rotated = rotate_matrix(weight, rows, columns)
    hessian = rotate_matrix(damped(gram, float(params.get("dampening", DAMPENING))).to(rotated), columns, columns)
    scale = (unit_scale(bits).to(rotated) * rotated.square().mean().sqrt()).clamp_(min=torch.finfo(torch.float32).tiny)

    def rounding(vectors: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
        found = encode(vectors, scale, bits)
        return decode(*found, scale), found

    _, found = ldlq(rotated, hessian, rounding, DIMENSION)
    codes, residual = ([part for part in parts if part is not None] for parts in zip(*found))
    return LatticeLinear(
        name,
        torch.stack(codes, dim=1).cpu(),
        torch.stack(residual, dim=1).cpu() if residual else None,
        scale.cpu(),
        rows,
        columns,
    )


def _require_vectors(job: QuantizeJob) -> None:
    for name, (_, width) in linears(job).items():
        if width % DIMENSION:
            raise UserError(
                f"{job.source}: {name} has {width} inputs; quip_sharp rounds {DIMENSION} at a time: use another method"
            )
