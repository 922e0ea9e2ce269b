"""GPTQ (Frantar et al. 2022, arXiv 2210.17323) by gptqmodel, in its own environment."""

from bitsafe.quantizers.base import QuantizeJob, require_bits, require_groups, require_params
from bitsafe.quantizers.shared.environment import quantize_elsewhere

VERSION = 1
BITS = (8, 4, 3, 2)


def quantize(job: QuantizeJob) -> dict:
    """Write a GPTQ artefact.

    params: group_size, symmetric, samples, dampening (a share of the mean diagonal of the Hessian).
    """
    require_bits(job, BITS)
    require_params(job, ("group_size", "symmetric", "samples", "dampening"))
    require_groups(job)
    settings = {"method": "gptq", "dampening": float(job.params.get("dampening", 0.01))}
    return quantize_elsewhere(job, "gptqmodel", settings)
