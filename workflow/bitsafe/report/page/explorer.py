"""The transcripts of a page: chains of arms, and the answers as columns that a script filters without reading them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bitsafe.cells import Cell
from bitsafe.report.findings import name_of
from bitsafe.report.page.answers import Group, Prompts, Slot, groups_of
from bitsafe.report.page.charts import short_name
from bitsafe.report.page.packing import Texts, packed_json, packed_numbers, starts
from bitsafe.report.text import count, one_line
from bitsafe.stats.verdicts import STATES

if TYPE_CHECKING:
    from bitsafe.matrix.run import Run

Chain = tuple[Cell, ...]  # full precision, a quantized cell, and its repair where there is one


@dataclass(frozen=True)
class Explorer:
    """What the page holds: `meta` as JSON, `blocks` of packed data by the id of their element, and what was kept."""

    meta: dict[str, Any]
    blocks: list[tuple[str, str]]
    kept: int
    answers: int
    tokens: int

    @property
    def words(self) -> str:
        if not self.kept:
            return "None: nothing was answered yet, or report.transcripts of the config leaves room for no prompt."
        if self.kept == self.answers:
            return f"All {count(self.answers, 'answer')} of the run, through every judge."
        held = f"{self.kept:,} of {count(self.answers, 'answer')}"
        return f"{held} (config: report.transcripts), those to prompts whose verdicts flip first: a choice, no sample."


def explorer(run: "Run") -> Explorer:
    """All answers, or as many as `report.transcripts` allows."""
    groups = list(groups_of(run)) if run.config.report.transcripts else []
    chains = chains_of(run)
    answers = sum(len(group.slots) * len(group.texts) for group in groups)
    keep(groups, chains, run.config.report.transcripts)
    cells = [cell for cell in run.cells if any(cell in group.texts for group in groups)]
    meta = {
        "cells": [{"name": name_of(cell), "arm": arm(cell), "model": cell.model} for cell in cells],
        "chains": [_chain(chain, cells, run) for chain in chains if chain[-1] in cells],
        "judges": list(run.judges),
        "states": list(STATES),
    }
    columns = _Columns(run, cells)
    meta["groups"] = [columns.add(group) for group in groups if group.slots]
    blocks = columns.blocks()
    meta |= {
        "chunks": columns.firsts,
        "texts": len(columns.texts),
        "settings": list(columns.settings),
        "reasons": list(columns.reasons),
    }
    kept = sum(len(group.slots) * len(group.texts) for group in groups)
    return Explorer(meta, blocks, kept, answers, sum(group.tokens for group in groups))


def chains_of(run: "Run") -> list[Chain]:
    """Every cell with what it is compared with: repaired ones from full precision over the cell before the patch."""
    found: list[Chain] = []
    for cell in run.cells:
        if cell == cell.baseline:
            continue
        found.append((cell.baseline, cell.quantized, cell) if cell.is_patched else (cell.baseline, cell))
    return found


def _chain(chain: Chain, cells: list[Cell], run: "Run") -> dict[str, Any]:
    """Arms without any answer (a failed cell) are -1."""
    numbers = [cells.index(cell) if cell in cells else -1 for cell in chain]
    name = name_of(chain[-1]) + (" (control)" if chain[-1].stage in run.controls else "")
    model = f"{one_line(chain[0].model)}: " if len(run.config.models) > 1 else ""
    return {"name": model + name, "short": model + short_name(chain[-1]), "arms": numbers}


def arm(cell: Cell) -> str:
    return f"after {one_line(cell.stage)}" if cell.is_patched else name_of(cell)


def keep(groups: list[Group], chains: list[Chain], limit: int) -> None:
    """Leave the slots that flip in most chains, group by group in turn, until `limit` answers are kept."""
    if sum(len(group.slots) * len(group.texts) for group in groups) <= limit:
        return
    ranked = sorted(_ranked(groups, chains), key=lambda found: found[:3])
    kept: dict[int, set[Slot]] = {number: set() for number in range(len(groups))}
    for _flips, _place, number, slot in ranked:
        limit -= len(groups[number].texts)
        if limit < 0:
            break
        kept[number].add(slot)
    for number, group in enumerate(groups):
        group.slots = [slot for slot in group.slots if slot in kept[number]]


def _ranked(groups: list[Group], chains: list[Chain]) -> Iterator[tuple[int, int, int, Slot]]:
    """(minus the chains in which it flips, its place in the group, the group, the slot)."""
    for number, group in enumerate(groups):
        here = [chain for chain in chains if all(cell in group.texts for cell in chain)]
        for place, slot in enumerate(group.slots):
            yield -sum(flips(group, chain, slot) for chain in here), place, number, slot


def flips(group: Group, chain: Chain, slot: Slot) -> bool:
    """Whether two neighbouring arms were told apart by the leading judge; an unknown outcome is no flip."""
    said = [group.outcome(cell, slot) for cell in chain]
    return any(a and b and a != b for a, b in pairwise(said))


class _Columns:
    """The arrays that all groups share, and where each group's part of them begins."""

    def __init__(self, run: "Run", cells: list[Cell]) -> None:
        self.run, self.cells, self.prompts = run, cells, Prompts(run)
        self.texts = Texts()
        self.asked: dict[tuple[str, str, str], int] = {}  # benchmark, decoding, prompt id
        self.settings: dict[str, int] = {"": 0}
        self.reasons: dict[str, int] = {"": 0}
        self.firsts: list[int] = []
        self.slots: dict[str, list[int]] = {"prompt": [], "setting": [], "sample": []}
        self.answers: dict[str, list[int]] = {"text": []}
        for place in range(len(run.judges)):
            self.answers |= {f"code{place}": [], f"reason{place}": []}

    def add(self, group: Group) -> dict[str, Any]:
        first_slot, first_answer = len(self.slots["prompt"]), len(self.answers["text"])
        for name, setting, sample in group.slots:
            asked = (group.benchmark, group.decoding, name)
            self.slots["prompt"].append(self.asked.setdefault(asked, len(self.asked)))
            self.slots["setting"].append(self.settings.setdefault(setting, len(self.settings)))
            self.slots["sample"].append(min(sample, 65535))
        self._number_texts(group)
        here = [cell for cell in self.cells if cell in group.texts]
        for cell in here:
            self._add_cell(group, cell)
        offsets = starts([len(group.slots)] * len(here))
        where = {name: getattr(group, name) for name in ("model", "benchmark", "decoding", "replicate", "kind")}
        return where | {
            "judges": [self.run.judges.index(judge) for judge in group.judges],
            "slot": first_slot,
            "n": len(group.slots),
            "cells": {self.cells.index(cell): first_answer + offset for cell, offset in zip(here, offsets)},
        }

    def _number_texts(self, group: Group) -> None:
        """Slot by slot: answers to one prompt are alike, compress well side by side, and are read together."""
        for slot in group.slots:
            for texts in group.texts.values():
                if slot in texts:
                    self.texts.number(texts[slot])

    def _add_cell(self, group: Group, cell: Cell) -> None:
        texts = group.texts[cell]
        self.answers["text"] += [self.texts.number(texts[slot]) if slot in texts else -1 for slot in group.slots]
        for place, judge in enumerate(self.run.judges):
            said = group.said.get((cell, judge), {})
            found = [said.get(slot) for slot in group.slots]
            self.answers[f"code{place}"] += [one.code if one else 0 for one in found]
            self.answers[f"reason{place}"] += [self._reason(one.reason) if one else 0 for one in found]

    def _reason(self, reason: str) -> int:
        known = self.reasons.get(reason)
        if known is None and len(self.reasons) < 65_536:
            known = self.reasons[reason] = len(self.reasons)
        return known or 0

    def blocks(self) -> list[tuple[str, str]]:
        kinds = {"prompt": "i4", "setting": "u2", "sample": "u2", "text": "i4", "code": "u1", "reason": "u2"}
        columns = {**self.slots, **self.answers}
        found = [
            (f"column-{name}", packed_numbers(values, kinds[name.rstrip("0123456789")]))
            for name, values in columns.items()
        ]
        asked = [[one_line(name), *self.prompts.text(*key)] for key in self.asked for name in key[2:]]
        chunks = self.texts.chunks()
        self.firsts = [first for first, _ in chunks]
        texts = [(f"texts-{number}", data) for number, (_, data) in enumerate(chunks)]
        return [*found, ("prompts", packed_json(asked)), *texts]
