"""LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339) by bitsandbytes: 8-bit weights and activations. No data.

Each row of a weight and each token of an activation has its own scale; activations of 6 and more keep 16 bits.
bitsandbytes keeps a whole column of its batch where any entry of it is that large; the evaluation decides a token at a
time, so that an answer does not depend on its neighbours.
"""

from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.shared.bnb import quantize_without_data

VERSION = 1


def quantize(job: QuantizeJob) -> dict:
    """Write a bitsandbytes artefact and the rule for its activations."""
    return quantize_without_data(job, "int8")
