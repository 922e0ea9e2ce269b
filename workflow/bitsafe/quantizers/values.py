"""What the parameters of the method table may be, by name: one meaning a name, whatever the method."""

import math
from collections.abc import Callable
from typing import Any

Test = Callable[[Any], bool]


def whole(least: int, most: float = math.inf) -> tuple[Test, str]:
    upto = "" if most == math.inf else f" and at most {most}"
    return lambda value: _is_whole(value) and least <= value <= most, f"a whole number of at least {least}{upto}"


def number(least: float, *, above: bool = False) -> tuple[Test, str]:
    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return value > least if above else value >= least

    return holds, f"a number {'above' if above else 'of at least'} {least:g}"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


TRUTH = (lambda value: isinstance(value, bool)), "true or false"
GROUP = (lambda value: _is_whole(value) and (value == -1 or value > 0)), "a whole number above 0, or -1 for a whole row"
LAYERS = (lambda value: isinstance(value, list)), "a list of the last parts of layer names"

VALUES: dict[str, tuple[Test, str]] = {
    "group_size": GROUP,
    "symmetric": TRUTH,
    "activations": TRUTH,
    "eight_bit": LAYERS,
    "samples": whole(1),
    "steps": whole(0),
    "batch_size": whole(1),
    "lr": number(0),
    "dampening": number(0, above=True),
    "grid": whole(2),
    "outliers": number(0),
    "clip_search": whole(0, 99),
    "rank": whole(1),
    "alpha": number(0, above=True),
    "beam": whole(1),
    "kmeans_steps": whole(0),
    "adam_steps": whole(0),
    "adam_lr": number(0),
    "max_rounds": whole(0),
    "tolerance": number(0),
    "finetune_steps": whole(0),
    "finetune_lr": number(0),
    "activation_bits": whole(2, 16),
    "cache_bits": whole(2, 16),
    "tokens": whole(2),
    "distill_steps": whole(1),
}


def fault_of(name: str, value: Any) -> str | None:
    """What a parameter should be, where it is not; None where it is, or where the method alone can tell."""
    holds, wanted = VALUES.get(name, (lambda _value: True, ""))
    return None if holds(value) else wanted
