"""AWQ (Lin et al. 2023, arXiv 2306.00978) by llm-compressor: scales searched on calibration data, then rounding."""

from typing import Any

from torch import Tensor

from bitsafe.artefacts.rescaling import rescalings, write_rescaling
from bitsafe.quantizers.base import QuantizeJob, linears
from bitsafe.quantizers.shared.llm_compressor import calibrate

VERSION = 2  # 2: the scales are kept beside the artefact

# (layer whose outputs are divided, layers whose inputs are multiplied, scales), in the order they are applied
Applied = list[tuple[str, list[str], Tensor]]


def quantize(job: QuantizeJob) -> dict:
    """Write a compressed-tensors artefact and the scales that were folded into its layers.

    params: group_size, symmetric, samples, grid (scales tried a layer).
    """
    applied: Applied = []

    def recipe(scheme: dict[str, Any], ignore: list[str]) -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        search = recording_search(int(job.params.get("grid", 20)), applied)
        return [search, QuantizationModifier(config_groups=scheme, ignore=ignore)]

    facts = calibrate(job, recipe, "grid")
    write_rescaling(job.out, rescalings(applied, linears(job)))
    return facts


def recording_search(grid: int, applied: Applied) -> Any:
    """llm-compressor's search for scales, which notes in `applied` every one it settles on."""
    from llmcompressor.modifiers.transform.awq import AWQModifier

    class RecordingSearch(AWQModifier):
        def _compute_best_scale(self, mapping: Any, *arguments: Any) -> Tensor:
            scales = super()._compute_best_scale(mapping, *arguments)
            applied.append((mapping.smooth_name, list(mapping.balance_names), scales))
            return scales

    return RecordingSearch(n_grid=grid)
