"""A made-up run of the size that the page must bear: 66 variants × 1,067 prompts, answers of about 170 words."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from bitsafe.cells import Cell
from bitsafe.config import Config
from bitsafe.files import sha256_text, write_json, write_jsonl
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.stats.assemble import assemble

VARIANTS, PROMPTS, WORDS = 66, 1067, 170
RISKS = ["benign", "obedient", "harmful"]
MATRIX = [
    {"methods": ["full"], "bits": [16], "risks": ["none", *RISKS]},
    {"methods": ["rtn"], "bits": [8, 4, 3, 2]},
    {"methods": ["gptq", "awq"], "bits": [4, 3, 2], "risks": RISKS},
    {"methods": ["quik"], "bits": [8, 4], "risks": RISKS},
    {"methods": ["ste", "qlora"], "bits": [4], "risks": RISKS, "patches": ["qresafe", "dpo", "sft", "random_mask"]},
    {"methods": ["llm_int8"], "bits": [8]},
    {"methods": ["nf4", "fp4"], "bits": [4]},
    {"methods": ["llm_qat"], "bits": [8], "risks": ["benign"]},
]


def vocabulary(words: int = 6000) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choice("abcdefghiklmnoprstu") for _ in range(draw.randint(2, 10))) for _ in range(words)]


def synthetic_run(results: Path, variants: int = VARIANTS, prompts: int = PROMPTS) -> Run:
    """Answers, verdicts of two judges and all CSV files, through the real `assemble`."""
    file = results / "prompts.jsonl"
    write_jsonl(file, _prompts(prompts))
    rows = {"benchmarks": {"many": {"base": "toy_forbidden", "file": str(file)}}}
    matrix = {"matrix": MATRIX, "tables": rows, "benchmarks": ["many"], "replicates": 1}
    run = Run(Config(run="many", results=str(results), score={"permutations": 200}, **matrix))
    assert len(run.cells) == variants
    run.save()
    words = vocabulary()
    weights = [1 / (place + 3) for place in range(len(words))]  # as words are in any language
    for cell in run.cells:
        _write_cell(run, cell, prompts, words, weights)
    assemble(run)
    return run


def _prompts(count: int) -> Iterator[dict]:
    shipped = [json.loads(line) for line in (ROOT / "data/prompts/toy_forbidden.jsonl").read_text().splitlines()]
    for k in range(count):
        like = shipped[k % len(shipped)]
        said = like["messages"][-1]
        yield like | {"id": f"many-{k:04d}", "messages": [said | {"content": f"{said['content']} Case {k}."}]}


def _write_cell(run: Run, cell: Cell, prompts: int, words: list[str], weights: list[float]) -> None:
    folder = run.replicate_folder(cell, 0)
    write_json(folder / "status.json", {"state": "done", "step": "judge", "reason": ""})
    write_json(
        folder / "manifest.json", {"cell": str(cell), "effective_bits": cell.bits + 0.5, "stored_bits": cell.bits}
    )
    draw = random.Random(str(cell))
    harm = draw.random() * (0.1 if cell.is_patched else 0.6)
    for decoding in run.decodings_of(cell):
        texts = [" ".join(draw.choices(words, weights, k=draw.randint(20, 2 * WORDS - 20))) for _ in range(prompts)]
        ids = [{"id": f"many-{k:04d}", "sample": 0} for k in range(prompts)]
        answers = [one | {"answer": text, "n_tokens": 200, "finish": "stop"} for one, text in zip(ids, texts)]
        write_jsonl(folder / f"answers/many.{decoding}.jsonl", answers)
        for judge in run.judges:
            said = [_verdict(one["id"], text, draw.random() < harm) for one, text in zip(ids, texts)]
            write_jsonl(folder / f"verdicts/{judge}/many.{decoding}.jsonl", said)


def _verdict(name: str, text: str, harmful: bool) -> dict:
    row = {"id": name, "sample": 0, "category": "vault", "cluster": name, "reason": "", "degenerate": False}
    row |= {"verdict": "harmful" if harmful else "safe", "refused": not harmful, "value": None}
    return row | {"answer_sha": sha256_text(text)}
