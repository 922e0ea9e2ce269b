"""GPTQ (Frantar et al. 2022, arXiv 2210.17323) by llm-compressor: second-order rounding on calibration data."""

from typing import Any

from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.shared.llm_compressor import calibrate

VERSION = 1


def quantize(job: QuantizeJob) -> dict:
    """Write a compressed-tensors artefact.

    params: group_size, symmetric, samples, dampening (a share of the mean diagonal of the Hessian).
    """

    def recipe(scheme: dict[str, Any], ignore: list[str]) -> list[Any]:
        from llmcompressor.modifiers.gptq import GPTQModifier

        damping = float(job.params.get("dampening", 0.01))
        return [GPTQModifier(config_groups=scheme, ignore=ignore, dampening_frac=damping)]

    return calibrate(job, recipe, "dampening")
