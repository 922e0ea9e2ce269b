"""Which rows are answered together: batches that need the same room. No torch here: estimates read it too."""

from collections.abc import Sequence
from math import ceil

from bitsafe.files import sha256_json

MORE = 2  # times batch_size is the largest batch: of short rows logits take the memory, not the cache
SHARED = 2  # rows of a grid a cache entry: many say the same for long; with more, those that part find no room


def plan_batches(lengths: Sequence[int], batch_size: int, new: int = 0, shuffled: int | None = None) -> list[list[int]]:
    """Indices of the rows of each batch, longest first: too large a batch fails at once.

    There is room for `batch_size` of the longest rows with `new` tokens each: batches of short rows hold more, up to
    MORE times as many. shuffled: the seed of another plan, in random order and with batches two thirds the size: its
    padding differs, so comparing the two shows what the arithmetic of a batch does to an answer.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if shuffled is not None:
        return even_batches(sorted(order, key=lambda i: sha256_json([shuffled, i])), max(1, batch_size * 2 // 3))
    batches: list[list[int]] = []
    for index in order:
        longest = lengths[batches[-1][0]] if batches else 0
        room = batch_size * (lengths[order[0]] + new) // max(1, longest + new)
        if not batches or len(batches[-1]) >= min(room, MORE * batch_size):
            batches.append([])
        batches[-1].append(index)
    return batches


def even_batches(order: list[int], batch_size: int) -> list[list[int]]:
    rows, count = len(order), ceil(len(order) / batch_size)
    return [order[rows * k // count : rows * (k + 1) // count] for k in range(count)]


def wanted_only(batches: list[list[int]], wanted: set[int] | None) -> list[list[int]]:
    return batches if wanted is None else [batch for batch in batches if wanted.intersection(batch)]
