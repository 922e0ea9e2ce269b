"""AWQ (Lin et al. 2023, arXiv 2306.00978) by AutoAWQ, in its own environment: 4 bits is all it can."""

from bitsafe.errors import UserError
from bitsafe.quantizers.base import QuantizeJob, require_bits, require_groups, require_params
from bitsafe.quantizers.shared.environment import quantize_elsewhere

VERSION = 1
BITS = (4,)


def quantize(job: QuantizeJob) -> dict:
    """Write an AWQ artefact, asymmetric. params: group_size, samples."""
    require_bits(job, BITS)
    require_params(job, ("group_size", "samples"))
    require_groups(job)
    if job.group_size == -1:
        raise UserError("workflow/tables/methods.yaml: group_size: -1: AutoAWQ needs a number, such as 64 or 128")
    return quantize_elsewhere(job, "autoawq", {}, old=True)
