"""AWQ (Lin et al. 2023, arXiv 2306.00978) by llm-compressor: scales searched on calibration data, then rounding."""

from typing import Any

from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.shared.llm_compressor import calibrate

VERSION = 1


def quantize(job: QuantizeJob) -> dict:
    """Write a compressed-tensors artefact. params: group_size, symmetric, samples, grid (scales tried a layer)."""

    def recipe(scheme: dict[str, Any], ignore: list[str]) -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform.awq import AWQModifier

        search = AWQModifier(n_grid=int(job.params.get("grid", 20)))
        return [search, QuantizationModifier(config_groups=scheme, ignore=ignore)]

    return calibrate(job, recipe, "grid")
