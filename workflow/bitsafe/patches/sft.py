"""Supervised fine-tuning of the quantized model on the full-precision answers of the patch set; every code may move."""

from dataclasses import replace
from typing import Any

from bitsafe.patches.base import PatchJob
from bitsafe.patches.shared.repair import repair, whole

VERSION = 1


def patch(job: PatchJob) -> dict[str, Any]:
    """The pairs' preferred answers alone: what a team would do that has never heard of preferences."""
    return repair(replace(job, params=job.params | {"objective": "sft"}), whole)
