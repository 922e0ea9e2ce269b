"""Round to nearest: every weight to the nearest level of its group's min-max grid. No data."""

from bitsafe.artefacts.checkpoint import storage_dtype
from bitsafe.artefacts.formats.compressed import write_compressed
from bitsafe.artefacts.grids import affine_grid
from bitsafe.artefacts.layers import QuantizedLinear
from bitsafe.quantizers.base import QuantizeJob, linears, require_bits, require_groups, require_params, source_tensors

VERSION = 1
BITS = (8, 4, 3, 2)
PARAMS = ("group_size", "symmetric")


def quantize(job: QuantizeJob) -> dict:
    """Write a compressed-tensors artefact. params: group_size, symmetric."""
    require_bits(job, BITS)
    require_params(job, PARAMS)
    require_groups(job)
    others, layers, dtype = source_tensors(job), [], storage_dtype(job.source)
    for name in linears(job):
        weight = others.pop(f"{name}.weight")
        grid = affine_grid(weight, job.bits, job.group_size, job.symmetric, dtype)
        layers.append(QuantizedLinear(name, grid.nearest(weight), grid))
    write_compressed(job.out, job.source, layers, others, job.group_size)
    return {"layers": len(layers)}
