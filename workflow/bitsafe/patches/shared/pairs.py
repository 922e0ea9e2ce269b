"""Preference pairs: the full-precision answer is preferred to the quantized one (Q-resafe, Alg. 1, l. 1-5)."""

from collections import Counter
from collections.abc import Callable

Refused = Callable[[str], bool]


def make_pairs(
    prompts: list[dict], winners: list[str], losers: list[str], refused: Refused
) -> tuple[list[dict], dict[str, int]]:
    """Rows {id, messages, winner, loser, class}, identical pairs dropped, and how many there are of each class.

    No class is filtered out here: the paper filters none, and its users should see what a patch was made of.
    """
    rows, counts = [], Counter(dict.fromkeys([*CLASSES.values(), "identical"], 0))
    for prompt, winner, loser in zip(prompts, winners, losers, strict=True):
        if winner == loser:
            counts["identical"] += 1
            continue
        kind = CLASSES[refused(winner), refused(loser)]
        counts[kind] += 1
        messages = prompt["messages"]
        rows.append({"id": prompt["id"], "messages": messages, "winner": winner, "loser": loser, "class": kind})
    return rows, dict(counts)


CLASSES = {  # (winner refused, loser refused)
    (True, False): "refuse_comply",
    (True, True): "both_refuse",
    (False, False): "both_comply",
    (False, True): "comply_refuse",
}
