"""decoding_grid: 49 settings x 100 prompts of the toy as one decoding, against 49 single runs in the same process.

A single run is plain `generate` of transformers on all 100 prompts in one batch, with the setting's parameters. Both
are told in processor seconds of one thread, the two taking turns; each has random numbers of its own, so what is drawn
differs, and how much is drawn hardly (`tokens`).
"""

import time
from statistics import median

import torch

from bitsafe.artefacts.load import load_dense
from bitsafe.files import read_jsonl
from bitsafe.generate.engine import answer
from bitsafe.generate.grid import settings_of
from bitsafe.generate.prompts import prompt_ids
from bitsafe.generate.step import each_asked
from bitsafe.matrix.tables import ROOT, Tables

TOY, PROMPTS, REPEATS = "data/toy/organism0", 100, 2


def run() -> list[dict]:
    model, tokenizer = load_dense(ROOT / TOY, "float32")
    toy = Tables().get("models", "toy", "bench")
    grid = Tables().get("decodings", "grid49", "bench").model_dump()
    prompts = read_jsonl(ROOT / "data/prompts/toy_forbidden.jsonl")[:PROMPTS]
    arguments = model, tokenizer, prompts, grid, toy.max_new_tokens
    pairs = [(together(*arguments, toy.batch_size), one_by_one(*arguments)) for _ in range(REPEATS)]
    ratios = [ours["cpu"] / peer["cpu"] for ours, peer in pairs]
    ours, peer = (median(each[k]["cpu"] for each in pairs) for k in (0, 1))
    return [
        {
            "name": "decoding_grid",
            "ours": ours,
            "peer": peer,
            "peer_name": "49 runs of generate",
            "ratio": median(ratios),
        }
        | {"unit": "CPU seconds", "n": PROMPTS * len(settings_of(grid)), "spread": [min(ratios), max(ratios)]}
        | {"repeats": REPEATS, "seconds": [[part["wall"] for part in pair] for pair in pairs]}
        | {"cpu_seconds": [[part["cpu"] for part in pair] for pair in pairs], "tokens": [p["tokens"] for p in pairs[0]]}
    ]


def timed(work) -> dict:
    cpu, wall = time.process_time(), time.perf_counter()
    tokens = work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "tokens": tokens}


def together(model, tokenizer, prompts: list[dict], grid: dict, new: int, batch_size: int) -> dict:
    asked = each_asked(prompts, grid, 1)
    return timed(
        lambda: sum(one.n_tokens for batch in answer(model, tokenizer, asked, grid, new, batch_size) for one in batch)
    )


def one_by_one(model, tokenizer, prompts: list[dict], grid: dict, new: int) -> dict:
    def work() -> int:
        ids = prompt_ids(tokenizer, prompts, {})
        width, end = max(map(len, ids)), model.generation_config.eos_token_id
        inputs = torch.tensor([[0] * (width - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        tokens = 0
        for row in settings_of(grid).values():
            chosen = {"temperature": row["temperature"], "top_p": row["top_p"], "top_k": int(row["top_k"])}
            torch.manual_seed(0)
            out = model.generate(inputs, attention_mask=mask, max_new_tokens=new, do_sample=True, **chosen)[:, width:]
            tokens += int(((out != end).cumprod(1)).sum())
        return tokens

    return timed(work)
