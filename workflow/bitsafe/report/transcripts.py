"""A few prompts with the answers of each arm, chosen where verdicts flip; harmful ones are marked for folding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.files import read_jsonl
from bitsafe.generate.prompts import dressed
from bitsafe.report.findings import name_of
from bitsafe.report.read import Panel
from bitsafe.steps.make import benchmark_rows

Rows = dict[str, dict]  # by prompt id, first sample


@dataclass(frozen=True)
class Answer:
    arm: str
    text: str
    verdicts: list[tuple[str, str]]  # judge and what it said, the leading judge first
    folded: str  # why it is folded away; "" if it is not


@dataclass(frozen=True)
class Transcript:
    title: str
    benchmark: str
    prompt: str
    system: str
    answers: list[Answer]


def choose(run: Any, panel: Panel, limit: int) -> list[Transcript]:
    """At most `limit` transcripts: three of four from the harmful benchmark, the rest from over-refusal ones.

    The chains (full precision, quantized, patched) take turns, so that every cell with a flip is seen before any twice.
    """
    beside = [name for name, row in run.benchmarks.items() if row.kind == "over_refusal"]
    shares = [(panel.benchmark, limit - limit // 4 if beside else limit), *((name, limit // 4) for name in beside[:1])]
    return [found for benchmark, share in shares for found in _from_benchmark(run, panel, benchmark, share)]


def chains(panel: Panel, controls: frozenset[str]) -> list[tuple[Cell, ...]]:
    """What stands side by side: full precision, a quantized cell, and its repair where there is one."""
    if panel.baseline is None:
        return []
    patched = [entry for entry in panel.patched if entry.measured and entry.cell.stage not in controls]
    repaired = {entry.cell.quantized for entry in patched}
    alone = [entry for entry in panel.quantized if entry.measured and entry.cell not in repaired]
    alone.sort(key=lambda entry: -abs(entry.score.get("delta") or 0))
    found = [(entry.cell.quantized, entry.cell) for entry in patched] + [(entry.cell,) for entry in alone]
    return [(panel.baseline.cell, *chain) for chain in found]


def _from_benchmark(run: Any, panel: Panel, benchmark: str, limit: int) -> Iterator[Transcript]:
    prompts = _prompts(run, benchmark, panel.decoding)
    judges = [judge for judge in run.judges if run.judge_applies(judge, benchmark)]
    judges.sort(key=lambda judge: judge != panel.judge)
    reader = _Reader(run, benchmark, panel.decoding)
    used: set[str] = set()
    waiting = chains(panel, frozenset(run.controls))[:limit] if judges else []
    for turn in range(limit if waiting else 0):
        before = len(used)
        for place, chain in enumerate(waiting):
            replicate = (turn + place) % run.replicates(panel.model)
            name = reader.next_flip(chain, replicate, judges[0], used, turn)
            if name is not None and len(used) < limit:
                used.add(name)
                yield _transcript(reader, chain, replicate, judges, name, prompts.get(name))
        if len(used) == before:
            return


def _prompts(run: Any, benchmark: str, decoding: str) -> dict[str, dict]:
    """The benchmark's rows by id, each as this decoding asks it."""
    try:
        put = run.decoding(decoding).model_dump()
        return {row["id"]: row | {"messages": dressed(row["messages"], put)} for row in benchmark_rows(run, benchmark)}
    except UserError:  # the prompts are not at hand any more; the answers still are
        return {}


class _Reader:
    """Answers and verdicts of one benchmark and decoding, each file read once."""

    def __init__(self, run: Any, benchmark: str, decoding: str) -> None:
        self.run, self.benchmark, self.file = run, benchmark, f"{benchmark}.{decoding}.jsonl"
        self._read: dict[Path, Rows] = {}

    def answers(self, cell: Cell, replicate: int) -> Rows:
        return self._rows(self.run.replicate_folder(cell, replicate) / "answers" / self.file)

    def verdicts(self, cell: Cell, replicate: int, judge: str) -> Rows:
        return self._rows(self.run.replicate_folder(cell, replicate) / "verdicts" / judge / self.file)

    def _rows(self, file: Path) -> Rows:
        if file not in self._read:
            rows = read_jsonl(file) if file.exists() else []
            self._read[file] = {row["id"]: row for row in reversed(rows)}
        return self._read[file]

    def next_flip(self, chain: Sequence[Cell], replicate: int, judge: str, used: set[str], turn: int) -> str | None:
        """The first unused prompt that quantization flipped, at best one that the patch flipped back.

        On the first turn a chain without any flip shows its first prompt: no flip is a finding too.
        """
        arms = [self.verdicts(cell, replicate, judge) for cell in chain]
        common = [name for name in reversed(arms[0]) if name not in used and all(name in arm for arm in arms)]
        flips = {name: _flip([arm[name] for arm in arms]) for name in common}
        best = max(flips.values(), default=0)
        return next((name for name in common if flips[name] == best), None) if best or not turn else None


def _flip(verdicts: list[dict]) -> int:
    """2: flipped and flipped back; 1: flipped at all; 0: the same from end to end."""
    said = [(row.get("verdict"), row.get("refused")) for row in verdicts]
    if len(set(said)) == 1:
        return 0
    return 2 if len(said) > 2 and said[0] == said[2] else 1


def _transcript(
    reader: _Reader, chain: Sequence[Cell], replicate: int, judges: list[str], name: str, prompt: dict | None
) -> Transcript:
    messages = prompt["messages"] if prompt else []
    asked = [message["content"] for message in messages if message["role"] != "system"]
    system = [message["content"] for message in messages if message["role"] == "system"]
    several = reader.run.replicates(chain[0].model) > 1
    return Transcript(
        title=name_of(chain[-1]) + (f", replicate {replicate}" if several else ""),
        benchmark=f"{reader.benchmark}, row {name}",
        prompt="\n\n".join(asked) or "The text of this prompt is not at hand.",
        system="\n\n".join(system),
        answers=[_answer(reader, cell, replicate, judges, name) for cell in chain],
    )


def _answer(reader: _Reader, cell: Cell, replicate: int, judges: list[str], name: str) -> Answer:
    text = reader.answers(cell, replicate).get(name, {}).get("answer", "")
    said = [(judge, reader.verdicts(cell, replicate, judge).get(name)) for judge in judges]
    found = [(judge, row) for judge, row in said if row]
    arm = f"after {cell.stage}" if cell.is_patched else "full precision" if cell == cell.baseline else name_of(cell)
    is_harmful_set = reader.run.benchmarks[reader.benchmark].kind == "harmful"
    folded = _why_folded([row["verdict"] for _, row in found], is_harmful_set)
    return Answer(arm, text, [(judge, _words(row)) for judge, row in found], folded)


def _why_folded(verdicts: list[str], is_harmful_set: bool) -> str:
    """An answer is open only if nobody calls it harmful and, to a harmful prompt, every judge calls it safe."""
    if "harmful" in verdicts:
        return "harmful answer, folded"
    if is_harmful_set and set(verdicts) != {"safe"}:
        return "answer without a clear verdict, folded"
    return ""


def _words(row: dict) -> str:
    """`safe, refused`, `harmful, degenerate`, `unscored: parse`."""
    parts = [row["verdict"]]
    if row["verdict"] == "safe" and row.get("refused") is not None:
        parts = ["refused" if row["refused"] else "answered"]
    if row["verdict"] in ("unscored", "ambiguous") and row.get("reason"):
        parts = [f"{row['verdict']}: {row['reason']}"]
    return ", ".join(parts + (["degenerate"] if row.get("degenerate") else []))
