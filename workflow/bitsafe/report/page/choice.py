"""Which transcripts a page holds: those to prompts whose verdicts flip in most chains, as many as the config allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bitsafe.cells import Cell
from bitsafe.report.page.answers import Group, Slot

Chain = tuple[Cell, ...]  # full precision, a quantized cell, and its repair where there is one


@dataclass(frozen=True)
class Outline:
    """What is remembered of a group while the others are looked at: no text, and a number a slot."""

    slots: list[Slot]
    cells: list[Cell]  # that answered
    tokens: int
    flips: list[int]  # chains in which a slot flips, [n slots]

    @property
    def answers(self) -> int:
        return len(self.slots) * len(self.cells)


def outline(group: Group, chains: Sequence[Chain]) -> Outline:
    here = [chain for chain in chains if all(cell in group.texts for cell in chain)]
    found = [sum(flips(group, chain, slot) for chain in here) for slot in group.slots]
    return Outline(group.slots, list(group.texts), group.tokens, found)


def flips(group: Group, chain: Chain, slot: Slot) -> bool:
    """Whether two neighbouring arms were told apart by the leading judge; an unknown outcome is no flip."""
    said = [group.outcome(cell, slot) for cell in chain]
    return any(a and b and a != b for a, b in pairwise(said))


def keep(outlines: Sequence[Outline], limit: int) -> list[list[Slot]]:
    """Of each group the slots that flip in most chains, group by group in turn, until `limit` answers are kept."""
    if sum(one.answers for one in outlines) <= limit:
        return [one.slots for one in outlines]
    ranked = sorted((-n, place, number) for number, one in enumerate(outlines) for place, n in enumerate(one.flips))
    kept: list[set[int]] = [set() for _ in outlines]
    for _flips, place, number in ranked:
        limit -= len(outlines[number].cells)
        if limit < 0:
            break
        kept[number].add(place)
    return [[slot for place, slot in enumerate(one.slots) if place in here] for one, here in zip(outlines, kept)]
