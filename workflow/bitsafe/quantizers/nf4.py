"""4-bit NormalFloat (Dettmers et al. 2023, §3) by bitsandbytes. No data."""

from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.shared.bnb import quantize_without_data

VERSION = 1


def quantize(job: QuantizeJob) -> dict:
    """Write a bitsandbytes artefact, blocks of 64 weights, float32 maxima (no double quantization)."""
    return quantize_without_data(job, "nf4")
