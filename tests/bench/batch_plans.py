"""batch_plans: the share of answers that change when they are worked out in other company, in float32 and in bfloat16.

The same prompts, seeds and model, drawn at temperature 1, in batches of several sizes: the random numbers are the rows'
own, so what differs is the last bits of the logits. An answer counts as changed if any plan gives it another text than
the first does. On a CPU without bfloat16 instructions `generate` computes in float32 (docs/performance.md); here
bfloat16 is asked for all the same.
"""

import torch
from tests.bench.generation import prompts
from tests.bench.smollm2 import CHECKPOINT, prepare

from bitsafe.artefacts.load import load_dense
from bitsafe.files import read_jsonl
from bitsafe.generate.engine import answer
from bitsafe.matrix.tables import ROOT

DRAWN = {"do_sample": True, "temperature": 1.0}
FIRST, OTHERS = 64, (1, 3, 17)


def run() -> list[dict]:
    toy = read_jsonl(ROOT / "data/prompts/toy_forbidden.jsonl")[:64]
    if not (CHECKPOINT / "config.json").exists():
        prepare()
    return [
        row("toy", ROOT / "data/toy/organism0", toy, 40, OTHERS),
        row("smollm2", CHECKPOINT, prompts()[:8], 24, OTHERS[1:2]),
    ]


def row(name: str, folder, rows: list[dict], new: int, others: tuple[int, ...]) -> dict:
    model, tokenizer = load_dense(folder, "float32")
    whole = changed(model, tokenizer, rows, new, others)
    half = changed(model.to(torch.bfloat16), tokenizer, rows, new, others)
    return {
        **{"name": "batch_plans", "model": name, "ours": whole, "peer": half, "peer_name": "bfloat16"},
        **{"ratio": whole / half if half else None, "unit": "share of answers changed", "n": len(rows), "spread": None},
        **{"tokens": new, "batches": [FIRST, *others]},
    }


def changed(model, tokenizer, rows: list[dict], new: int, others: tuple[int, ...]) -> float:
    first, *rest = (texts(model, tokenizer, rows, new, batch) for batch in (FIRST, *others))
    return sum(any(other[k] != text for other in rest) for k, text in enumerate(first)) / len(rows)


def texts(model, tokenizer, rows: list[dict], new: int, batch: int) -> list[str]:
    return [one.text for one in sorted(a for part in answer(model, tokenizer, rows, DRAWN, new, batch) for a in part)]
