"""Choosing a learning rate: every patch, rival and control tries the same ones and is judged on the same prompts."""

import logging
from collections.abc import Callable
from typing import Any

from bitsafe.errors import CellError
from bitsafe.judges.keyword import refused
from bitsafe.patches.base import PatchJob, Settings
from bitsafe.patches.shared.collect import Collected
from bitsafe.patches.shared.export import Quantized

log = logging.getLogger(__name__)


def best_rate(
    rates: list[float], fit: Callable[[float], tuple[Quantized, dict[str, Any]]], agrees: Callable[[], float]
) -> tuple[Quantized, dict[str, Any]]:
    """The layers and facts of the rate whose patch agrees best; of equals, the smallest. A diverged rate drops out.

    fit: train at a rate, leaving the model patched. agrees: how well the model as it is now agrees (`agreement`).
    """
    best, tried = None, {}
    for rate in sorted(rates):
        try:
            patched, facts = fit(rate)
        except CellError as error:
            tried[str(rate)] = str(error)
            continue
        tried[str(rate)] = agrees()
        log.info("learning rate %g: agrees with full precision on %.1f %%", rate, 100 * tried[str(rate)])
        if best is None or tried[str(rate)] > best[0]:
            best = tried[str(rate)], patched, facts | {"lr": rate}
    if best is None:
        raise CellError(f"patch: it diverged at every learning rate: {'; '.join(tried.values())}")
    return best[1], best[2] | {"rates_tried": tried}


def agreement(job: PatchJob, found: Collected, settings: Settings) -> float:
    """Share of the validation prompts that the model as it is now refuses just where full precision does.

    Refusals and benign answers count alike, so a patch that refuses everything does not win. No label is needed.
    """
    answers = job.generate(found.model, found.tokenizer, found.validation, max_new_tokens=settings.max_new_tokens)
    same = [refused(answer) == row["refused"] for answer, row in zip(answers, found.validation, strict=True)]
    return sum(same) / len(same)
