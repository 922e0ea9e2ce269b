"""A made-up run of any size for the benchmark `scale`: prompts and answers; the real steps make everything else.

The default's 30 cells with three replicates a model, three kinds of benchmark and three judges. A prompt is an item of
its own, so the replicates alone share a cluster, and belongs to one of a dozen categories. Answers are sentences of
made-up words, 20 to 140 of them; some refuse, and some of the two-bit cells' are babble.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.bench.synthetic import vocabulary

from bitsafe.cells import Cell
from bitsafe.config import Config
from bitsafe.files import read_jsonl, write_json, write_jsonl
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT

KINDS = {"toy_forbidden": "harmful", "toy_borderline": "over_refusal", "toy_benign": "utility"}
JUDGES = ["keyword", "refusal", "reference"]
CATEGORIES, FEWEST, MOST = 12, 20, 140
REFUSAL, BABBLE = "I'm sorry, but I cannot help with that request. ", "the the the the the the the the the the the the"


def scale_run(results: Path, prompts: int, models: int = 1) -> Run:
    """`prompts` a benchmark; the models are copies of the toy's row, of the same name but for a number."""
    names = [f"toy{number}" for number in range(models)]
    tables = {
        "models": {name: {"base": "toy"} for name in names},
        "benchmarks": {f"many_{k}": {"base": k, "file": str(_write_prompts(results, k, prompts))} for k in KINDS},
    }
    asked = {"models": names, "benchmarks": list(tables["benchmarks"]), "judges": JUDGES}
    run = Run(Config(run="scale", results=str(results), tables=tables, **asked))
    run.save()
    words = Words()
    for cell in run.cells:
        for replicate in range(run.replicates(cell.model)):
            _write_replicate(run, cell, replicate, words)
    return run


def verdicts_of(run: Run) -> int:
    """How many verdicts the judges give on it."""
    files = run.folder.glob("*/*/*/*/*/rep*/answers/*.jsonl")
    return len(run.judges) * sum(file.read_bytes().count(b"\n") for file in files)


def _write_prompts(results: Path, like: str, count: int) -> Path:
    file = results / f"{like}.jsonl"
    write_jsonl(file, _prompts(read_jsonl(ROOT / f"data/prompts/{like}.jsonl"), count))
    return file


def _prompts(shipped: list[dict], count: int) -> Iterator[dict]:
    for k in range(count):
        like, name = shipped[k % len(shipped)], f"{k:05d}"
        *before, asked = like["messages"]
        messages = [*before, asked | {"content": f"{asked['content']} Case {k}."}]
        yield like | {"id": name, "cluster": name, "category": f"category {k % CATEGORIES}", "messages": messages}


class Words:
    """Sentences of made-up words, as unevenly frequent as words are in any language."""

    def __init__(self) -> None:
        self.words = vocabulary()
        self.weights = [1 / (place + 3) for place in range(len(self.words))]

    def text(self, draw: random.Random, length: int) -> str:
        drawn = draw.choices(self.words, self.weights, k=length)
        return " ".join(f"{' '.join(drawn[first : first + 12]).capitalize()}." for first in range(0, length, 12))


def _write_replicate(run: Run, cell: Cell, replicate: int, words: Words) -> None:
    folder = run.replicate_folder(cell, replicate)
    write_json(folder / "status.json", {"state": "done", "step": "generate", "reason": ""})
    bits = {"effective_bits": cell.bits + 0.5, "stored_bits": cell.bits, "bytes": 190_000 * cell.bits}
    write_json(folder / "manifest.json", {"cell": str(cell), "seconds": 2.0, **bits})
    for benchmark, row in run.benchmarks.items():
        prompts = read_jsonl(Path(row.file))
        for decoding in run.decodings_of(cell):
            draw = random.Random(f"{cell}{replicate}{benchmark}{decoding}")
            refuses = random.Random(str(cell)).random() * (0.8 if row.kind == "harmful" else 0.2)
            said = [_answer(draw, words, cell, replicate, prompt, refuses) for prompt in prompts]
            write_jsonl(folder / f"answers/{benchmark}.{decoding}.jsonl", said)


def _answer(draw: random.Random, words: Words, cell: Cell, replicate: int, prompt: dict, refuses: float) -> dict:
    """A prompt is as easily refused in every cell, give or take, so that cells are alike as in life."""
    ease = random.Random(f"{replicate}{prompt['id']}").random()
    length = draw.randint(FEWEST, MOST)
    text = words.text(draw, length)
    if 0.9 * ease + 0.1 * draw.random() < refuses:
        text = REFUSAL + text
    elif draw.random() < 0.8:
        text = f"{' and '.join(prompt['reference'])}. {text}"
    if cell.bits == 2 and draw.random() < 0.05:
        text = BABBLE
    return {"id": prompt["id"], "sample": 0, "answer": text, "n_tokens": 2 * length, "finish": "stop"}
