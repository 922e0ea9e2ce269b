"""Plain DPO on the quantized model's grid: Q-resafe without a mask, every code may move (Rafailov et al. 2023)."""

from typing import Any

from bitsafe.patches.base import PatchJob
from bitsafe.patches.shared.repair import repair, whole

VERSION = 1


def patch(job: PatchJob) -> dict[str, Any]:
    """No weight is scored, so none is left out."""
    return repair(job, whole)
