"""The transcripts of a page: chains of arms, and the answers as columns that a script filters without reading them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitsafe.cells import Cell
from bitsafe.report.findings import name_of
from bitsafe.report.page.answers import Group, Prompts, filled, glanced, groups_of
from bitsafe.report.page.charts import short_name
from bitsafe.report.page.choice import Chain, keep, outline
from bitsafe.report.page.packing import Texts, packed_json, packed_numbers, starts
from bitsafe.report.text import count, one_line
from bitsafe.stats.verdicts import STATES

if TYPE_CHECKING:
    from bitsafe.matrix.run import Run


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
    groups, chains = list(groups_of(run)) if run.config.report.transcripts else [], chains_of(run)
    outlines = [outline(glanced(run, group), chains) for group in groups]
    kept = keep(outlines, run.config.report.transcripts)
    answered = {cell for one in outlines for cell in one.cells}
    columns = _Columns(run, [cell for cell in run.cells if cell in answered])
    meta = {
        "cells": [{"name": name_of(cell), "arm": arm(cell), "model": cell.model} for cell in columns.places],
        "chains": [_chain(chain, columns.places, run) for chain in chains if chain[-1] in answered],
        "judges": list(run.judges),
        "states": list(STATES),
        "groups": [columns.add(filled(run, group, slots)) for group, slots in zip(groups, kept) if slots],
    }
    blocks = columns.blocks()
    meta |= {
        "chunks": columns.firsts,
        "texts": len(columns.texts),
        "settings": list(columns.settings),
        "reasons": list(columns.reasons),
    }
    held = sum(len(slots) * len(one.cells) for slots, one in zip(kept, outlines))
    return Explorer(meta, blocks, held, sum(one.answers for one in outlines), sum(one.tokens for one in outlines))


def chains_of(run: "Run") -> list[Chain]:
    """Every cell with what it is compared with: repaired ones from full precision over the cell before the patch."""
    found: list[Chain] = []
    for cell in run.cells:
        if cell == cell.baseline:
            continue
        found.append((cell.baseline, cell.quantized, cell) if cell.is_patched else (cell.baseline, cell))
    return found


def _chain(chain: Chain, places: dict[Cell, int], run: "Run") -> dict[str, Any]:
    """Arms without any answer (a failed cell) are -1."""
    numbers = [places.get(cell, -1) for cell in chain]
    name = name_of(chain[-1]) + (" (control)" if chain[-1].stage in run.controls else "")
    model = f"{one_line(chain[0].model)}: " if len(run.config.models) > 1 else ""
    return {"name": model + name, "short": model + short_name(chain[-1]), "arms": numbers}


def arm(cell: Cell) -> str:
    return f"after {one_line(cell.stage)}" if cell.is_patched else name_of(cell)


class _Columns:
    """The arrays that all groups share, and where each group's part of them begins."""

    def __init__(self, run: "Run", cells: list[Cell]) -> None:
        self.run, self.prompts = run, Prompts(run)
        self.places = {cell: place for place, cell in enumerate(cells)}
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
        here = [cell for cell in self.places if cell in group.texts]
        for cell in here:
            self._add_cell(group, cell)
        offsets = starts([len(group.slots)] * len(here))
        where = {name: getattr(group, name) for name in ("model", "benchmark", "decoding", "replicate", "kind")}
        return where | {
            "judges": [self.run.judges.index(judge) for judge in group.judges],
            "slot": first_slot,
            "n": len(group.slots),
            "cells": {self.places[cell]: first_answer + offset for cell, offset in zip(here, offsets)},
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
