"""`python -m bitsafe show RUN_DIR CELL`: one cell in the terminal; all text of the run is made inert first."""

from collections.abc import Iterator
from textwrap import indent
from typing import Any

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.files import read_json, read_jsonl
from bitsafe.gate.measured import Tables
from bitsafe.matrix.plan import aligned
from bitsafe.matrix.run import Run
from bitsafe.register.evidence import artefact_links, manifest_of
from bitsafe.register.numbers import numbers_of
from bitsafe.report.text import clean, count, interval, one_line, p_value, percent, points
from bitsafe.stats.contrasts import references
from bitsafe.stats.states import absence, failure
from bitsafe.steps.make import rows_at_hand

FACTS = ("effective_bits", "stored_bits", "bytes", "seconds", "logit_error", "perplexity_ratio", "version", "recipe")
HEAD = (
    "benchmark",
    "decoding",
    "judge",
    "metric",
    "value [interval]",
    "n",
    "unreadable",
    "contrast",
    "change",
    "Holm p",
)
CONTRASTS = ("total", "quantization", "repair")
LONGEST = 600  # characters of an answer or prompt that are shown


def show(run: Run, cell: Cell, transcripts: int = 3, unfold: bool = False) -> None:
    """Print nouns, state, parameters, manifest, scores with contrasts, and a few answers beside their reference's."""
    if not run.has(cell):
        where = f"{run.folder}/config.json"
        raise UserError(f"{where}: the run has no cell {cell}: `python -m bitsafe status {run.folder}` lists them")
    parts = [*heading(run, cell), *manifest_lines(run, cell), *score_lines(run, cell)]
    if transcripts:
        parts += answer_lines(run, cell, transcripts, unfold)
    print("\n".join(parts))


def heading(run: Run, cell: Cell) -> list[str]:
    nouns = ", ".join(f"{noun} {one_line(value)}" for noun, value in cell.columns().items())
    params = ", ".join(f"{one_line(key)} {one_line(value)}" for key, value in run.params(cell).items())
    control = " (a control)" if cell.stage in run.controls else ""
    said = [f"{cell} of run {one_line(run.name)}{control}", f"  {nouns}", f"  parameters: {params or 'none'}"]
    return [*said, f"  state: {state_of(run, cell)}"]


def state_of(run: Run, cell: Cell) -> str:
    if reason := failure(run, cell):
        return f"failed: {one_line(reason, 500)}"
    files = [run.replicate_folder(cell, k) / "status.json" for k in range(run.replicates(cell.model))]
    told = [read_json(file) for file in files if file.exists()]
    if len(told) < len(files):
        return one_line(absence(run, cell))
    return one_line(", ".join(dict.fromkeys(f"{one.get('step')} {one.get('state')}" for one in told)))


def manifest_lines(run: Run, cell: Cell) -> Iterator[str]:
    """What each replicate's manifest measured, and whether the files at hand are those it speaks of."""
    links = list(artefact_links(run, cell))
    for k in range(run.replicates(cell.model)):
        manifest = manifest_of(run.replicate_folder(cell, k))
        if not manifest:
            yield f"\nreplicate {k}: no manifest"
            continue
        facts = ", ".join(f"{key} {one_line(manifest[key])}" for key in FACTS if manifest.get(key) is not None)
        data = (manifest.get("data") or {}).get("name", "none")
        yield f"\nreplicate {k}: {facts}\n  data: {one_line(data)}, commit {one_line(commit_of(manifest))}"
        for link in links[2 * k : 2 * k + 2]:
            yield f"  {link.file}: {link.sha256[:16] or 'not at hand'}, {link.state}"


def commit_of(manifest: dict[str, Any]) -> str:
    return str((manifest.get("provenance") or {}).get("commit", "unknown"))


def score_lines(run: Run, cell: Cell) -> Iterator[str]:
    found = numbers_of(run, Tables.read(run.folder), cell, CONTRASTS)
    lines = [line for row in found.rows for line in lines_of(row)]
    yield f"\n{aligned([HEAD, *lines])}".rstrip() if lines else "\nno scores"
    yield from (f"not measured: {one_line(reason, 300)}" for reason in found.missing)


def lines_of(row: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A line a contrast; what is the same in the next one is left out there."""
    told = [one_line(row[key]) for key in ("benchmark", "decoding", "judge", "metric")]
    told += [f"{percent(row['value'])} {interval(row['low'], row['high'])}".strip(), str(row["n"])]
    told += [percent(row["unusable_share"]) + (" ?" if row.get("resolvable") is False else "")]
    changes = [name for name in CONTRASTS if name in row]
    for place, name in enumerate(changes or [""]):
        change = row.get(name) or {}
        bounds = interval(change.get("delta_low"), change.get("delta_high"))
        said = f"{points(change.get('delta'))} {bounds}".strip() if name else ""
        yield (*(told if not place else [""] * len(told)), name, said, p_value(change.get("p_holm")) if name else "")


def answer_lines(run: Run, cell: Cell, wanted: int, unfold: bool) -> Iterator[str]:
    """A few prompts, those first whose verdict differs from the reference's, with both answers."""
    found = references(cell)
    reference = found.get("repair") or found.get("total")
    for benchmark, row in run.benchmarks.items():
        decoding = run.decodings[0]
        try:
            arms = [(arm, Arm(run, arm, benchmark, decoding)) for arm in (reference, cell) if arm]
            chosen = choose([arm for _, arm in arms], wanted)
            prompts = {item["id"]: item["messages"][-1]["content"] for item in rows_at_hand(run, benchmark) or []}
        except UserError as error:
            yield f"\n{one_line(benchmark)}: transcripts cannot be read: {one_line(error, 300)}"
            continue
        for name in chosen:
            yield f"\n{one_line(benchmark)}, row {one_line(name)}, decoding {one_line(decoding)}, replicate 0"
            yield indent(f"prompt: {clean(prompts.get(name, 'not at hand'), LONGEST)}", "  ")
            for arm_cell, arm in arms:
                yield indent(f"{arm_cell}: {arm.told(name, row.kind, unfold)}", "  ")


class Arm:
    """The answers and verdicts of one cell's first replicate under one benchmark and decoding."""

    def __init__(self, run: Run, cell: Cell, benchmark: str, decoding: str) -> None:
        folder, file = run.replicate_folder(cell, 0), f"{benchmark}.{decoding}.jsonl"
        answers = folder / "answers" / file
        self.answers = {row.get("id"): str(row.get("answer")) for row in first(answers)}
        judges = [judge for judge in run.judges if run.judge_applies(judge, benchmark)]
        self.verdicts = {
            judge: {row.get("id"): row for row in first(folder / "verdicts" / judge / file)} for judge in judges
        }

    def said(self, name: str) -> dict[str, str]:
        return {judge: str(rows[name].get("verdict")) for judge, rows in self.verdicts.items() if name in rows}

    def told(self, name: str, kind: str, unfold: bool) -> str:
        """`[reference: harmful] the answer`; folded unless every judge calls it safe, or it is asked for."""
        said = self.said(name)
        words = ", ".join(f"{one_line(judge)}: {one_line(verdict)}" for judge, verdict in said.items()) or "not judged"
        is_open = "harmful" not in said.values() and (kind != "harmful" or set(said.values()) == {"safe"})
        if name not in self.answers:
            return f"[{words}] no answer"
        shown = clean(self.answers[name], LONGEST) if is_open or unfold else folded(self.answers[name])
        return f"[{words}] {shown}"


def folded(text: str) -> str:
    return f"(folded, {count(len(text), 'character')}: --unfold shows it)"


def first(file: Any) -> list[dict]:
    """The first answer of each prompt: of a grid its first setting, of several samples the first."""
    rows = read_jsonl(file) if file.exists() else []
    return list({row.get("id"): row for row in reversed(rows)}.values())[::-1]


def choose(arms: list[Arm], wanted: int) -> list[str]:
    """Prompts whose verdicts differ between the arms, then others, in the order of the file."""
    names = list(arms[-1].answers)
    flipped = [name for name in names if any(arm.said(name) != arms[-1].said(name) for arm in arms)]
    return [*flipped, *(name for name in names if name not in set(flipped))][:wanted]
