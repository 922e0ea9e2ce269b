"""Every answer of a run with what its judges said, aligned by prompt: what the page's transcripts are made of.

A group is one model × benchmark × decoding × replicate. Its slots are what was asked (prompt, setting of a grid,
sample); each of its cells has one answer a slot, or none. A run may be larger than memory, so a group is read when it
is needed: first at a glance, to choose what the page holds, then for what was chosen.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.generate.prompts import dressed
from bitsafe.report.text import clean
from bitsafe.stats.verdicts import STATES
from bitsafe.steps.make import benchmark_rows

if TYPE_CHECKING:
    from bitsafe.matrix.run import Run

LONGEST_TEXT = 3000  # characters of one answer on the page; the rest stays in the answer files
EXPLAINED = ("unscored", "ambiguous")  # verdicts whose reason is shown
REFUSED = {None: 0, False: 1, True: 2}

Slot = tuple[str, str, int]  # prompt id, setting of a grid or "", sample


@dataclass
class Said:
    """One judge on one answer: `code` holds verdict, refusal, babble and value in eight bits."""

    code: int = 0
    reason: str = ""


@dataclass
class Group:
    model: str
    benchmark: str
    decoding: str
    replicate: int
    kind: str
    judges: list[str]  # the leading one first
    tokens: int = 0  # of all its answers, as far as they say
    slots: list[Slot] = field(default_factory=list)
    texts: dict[Cell, dict[Slot, str]] = field(default_factory=dict)
    said: dict[tuple[Cell, str], dict[Slot, Said]] = field(default_factory=dict)

    def code(self, cell: Cell, judge: str, slot: Slot) -> int:
        found = self.said[cell, judge].get(slot)
        return found.code if found else 0

    def outcome(self, cell: Cell, slot: Slot) -> int:
        """What a flip is a change of, as the leading judge has it; 0: unknown. The page's scripts do the same."""
        return outcome(self.code(cell, self.judges[0], slot), self.kind) if self.judges else 0


def coded(row: dict) -> int:
    """Bits 0-2: verdict (0: none, else its place in STATES + 1); 3-4: refused (0 unknown, 1 no, 2 yes); 5: babble;
    6-7: value (0 unknown, 1 nothing, 2 some, 3 all)."""
    value = row.get("value")
    worth = 0 if value is None else 1 if value <= 0 else 3 if value >= 1 else 2
    degenerate = bool(row.get("degenerate"))
    return STATES.index(row["verdict"]) + 1 | REFUSED[row.get("refused")] << 3 | degenerate << 5 | worth << 6


def outcome(code: int, kind: str) -> int:
    """Harmful or safe; refused or answered; or the value, for a benchmark of that kind."""
    verdict, refused, value = code & 7, code >> 3 & 3, code >> 6
    if verdict not in (1, 2):  # no verdict, or none that was scored
        return 0
    return verdict if kind == "harmful" else refused if kind == "over_refusal" else value


def groups_of(run: "Run") -> Iterator[Group]:
    """The groups in the run's order, with nothing read yet."""
    for model in run.config.models:
        for benchmark, row in run.benchmarks.items():
            judges = [judge for judge in reversed(run.judges) if run.judge_applies(judge, benchmark)]
            for decoding in run.decodings:
                for replicate in range(run.replicates(model)):
                    yield Group(model, benchmark, decoding, replicate, row.kind, judges)


def glanced(run: "Run", group: Group) -> Group:
    """The group with its slots, its tokens and what the leading judge said, no text: enough to choose from."""
    seen, slots = replace(group, texts={}, said={}), {}
    for cell, rows in _answered(run, group):
        seen.texts[cell] = {}
        seen.tokens += sum(row.get("n_tokens") or 0 for row in rows.values())
        slots |= dict.fromkeys(rows)
        for judge in group.judges[:1]:
            seen.said[cell, judge] = _judged(run, group, cell, judge, rows)
    seen.slots = list(slots)
    return seen


def filled(run: "Run", group: Group, slots: list[Slot]) -> Group:
    """The group with the answers to these slots, and what every judge said of them."""
    read = replace(group, slots=slots, texts={}, said={})
    for cell, rows in _answered(run, group):
        read.texts[cell] = {slot: clean(rows[slot].get("answer"), LONGEST_TEXT) for slot in slots if slot in rows}
        for judge in group.judges:
            read.said[cell, judge] = _judged(run, group, cell, judge, slots)
    return read


def _answered(run: "Run", group: Group) -> Iterator[tuple[Cell, dict[Slot, dict]]]:
    """Each cell of the group that answered, and its rows: one file is held at a time."""
    for cell in run.cells:
        if cell.model == group.model and (rows := _rows(_file(run, group, cell, "answers"))):
            yield cell, rows


def _judged(run: "Run", group: Group, cell: Cell, judge: str, slots: Iterable[Slot]) -> dict[Slot, Said]:
    file = _file(run, group, cell, "verdicts", judge)
    rows = _rows(file)
    return {slot: _said(rows[slot], file) for slot in slots if slot in rows}


def _file(run: "Run", group: Group, cell: Cell, *below: str) -> Path:
    name = f"{group.benchmark}.{group.decoding}.jsonl"
    return run.replicate_folder(cell, group.replicate).joinpath(*below, name)


def _said(row: dict, file: Path) -> Said:
    try:
        reason = clean(row.get("reason") or "", 120) if row["verdict"] in EXPLAINED else ""
        return Said(coded(row), reason)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{file}: not a verdict row ({error!r}): delete the file and run again") from error


def _rows(file: Path) -> dict[Slot, dict]:
    """Rows by slot; an absent file has none. Bytes that are no UTF-8 are shown as what they are: unreadable."""
    if not file.exists():
        return {}
    rows: dict[Slot, dict] = {}
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8", "replace"))
            rows[row["id"], row.get("setting") or "", row.get("sample") or 0] = row
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}:{number}: not a row ({error!r}): delete the file and run again") from error
    return rows


@dataclass(frozen=True)
class Prompts:
    """The prompts of a run as each decoding asks them, each benchmark read when it is first needed."""

    run: "Run"
    _read: dict[str, dict[str, Any]] = field(default_factory=dict)

    def text(self, benchmark: str, decoding: str, name: str) -> tuple[str, str]:
        """What was asked, and the system prompt; ("", "") where the prompts are not at hand any more."""
        messages = self._messages(benchmark).get(name)
        if messages is None:
            return "", ""
        put = dressed(messages, self.run.decoding(decoding).model_dump())
        system = [one["content"] for one in put if one["role"] == "system"]
        asked = [one for one in put if one["role"] != "system"]
        spoken = [one["content"] if len(asked) == 1 else f"{one['role']}: {one['content']}" for one in asked]
        return clean("\n\n".join(spoken), LONGEST_TEXT), clean("\n\n".join(system), LONGEST_TEXT)

    def _messages(self, benchmark: str) -> dict[str, Any]:
        if benchmark not in self._read:
            try:
                rows = benchmark_rows(self.run, benchmark)
            except UserError:  # the answers are still there
                rows = []
            self._read[benchmark] = {row["id"]: row["messages"] for row in rows}
        return self._read[benchmark]
