"""AWQ (Lin et al. 2023, arXiv 2306.00978) by gptqmodel, in its own environment."""

from bitsafe.quantizers.base import QuantizeJob, require_bits, require_groups, require_params
from bitsafe.quantizers.shared.environment import quantize_elsewhere

VERSION = 1
BITS = (4,)


def quantize(job: QuantizeJob) -> dict:
    """Write an AWQ artefact, asymmetric. params: group_size, samples."""
    require_bits(job, BITS)
    require_params(job, ("group_size", "samples"))
    require_groups(job)
    # in bfloat16, its own choice on a CPU, the rounded scales push codes over the top, where they wrap to 0
    return quantize_elsewhere(job, "gptqmodel", {"method": "awq", "dtype": "float16"})
