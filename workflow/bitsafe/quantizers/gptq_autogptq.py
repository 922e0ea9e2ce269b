"""GPTQ (Frantar et al. 2022, arXiv 2210.17323) by AutoGPTQ, in its own environment and only with a GPU."""

import torch

from bitsafe.errors import UserError
from bitsafe.quantizers.base import QuantizeJob, require_bits, require_groups, require_params
from bitsafe.quantizers.shared.environment import quantize_elsewhere

VERSION = 1
BITS = (8, 4, 3, 2)


def quantize(job: QuantizeJob) -> dict:
    """Write a GPTQ artefact, symmetric: AutoGPTQ 0.7.1 packs a zero-point of 0 as 2^32 − 1, over those beside it.

    params: group_size, samples, dampening (a share of the mean diagonal of the Hessian).
    """
    require_bits(job, BITS)
    require_params(job, ("group_size", "samples", "dampening"))
    require_groups(job)
    if not torch.cuda.is_available():
        raise UserError("gptq_autogptq: AutoGPTQ quantizes on a CUDA GPU only and there is none: use gptq_gptqmodel")
    return quantize_elsewhere(job, "auto-gptq", {"dampening": float(job.params.get("dampening", 0.01))}, old=True)
