"""generation: SmolLM2-135M's answers to prompts of mixed length, against plain `generate` in input order.

Both decode greedily on one thread in the same arithmetic with batches of the same size; plain `generate` takes the
prompts as they come and pads each batch to its longest. Told in tokens of answers a processor second, the two taking
turns. A second row leaves out the end token: every answer has its full length, and only order and loop differ.
"""

import time
from statistics import median

import torch
from tests.bench.smollm2 import CHECKPOINT, prepare

from bitsafe.artefacts.load import load_dense
from bitsafe.files import sha256_json
from bitsafe.generate.device import place
from bitsafe.generate.engine import answer
from bitsafe.generate.prompts import prompt_ids

PROMPTS, NEW, BATCH, REPEATS = 24, 48, 8, 2
WORDS = (8, 16, 32, 64, 128, 256)  # of the prompts, in turns, then shuffled
TEXT = "river mill bridge children village fish harvest weather price bread market town road field house garden"


def run() -> list[dict]:
    if not (CHECKPOINT / "config.json").exists():
        prepare()
    model, tokenizer = load_dense(CHECKPOINT, "bfloat16")
    model, rows = place(model), prompts()
    return [compared(model, tokenizer, rows, ends) for ends in (True, False)]


def prompts() -> list[dict]:
    """Requests of many lengths in random order; the first words differ, so that no two begin alike."""
    lengths = [WORDS[k % len(WORDS)] for k in range(PROMPTS)]
    words = TEXT.split()
    texts = [" ".join(words[(7 * k + j) % len(words)] for j in range(length)) for k, length in enumerate(lengths)]
    order = sorted(range(PROMPTS), key=lambda k: sha256_json(["generation", k]))
    return [{"messages": [{"role": "user", "content": f"Note {k}. Say in a word: {texts[k]}"}]} for k in order]


def compared(model, tokenizer, rows: list[dict], ends: bool) -> dict:
    own = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = own if ends else -1
    try:
        pairs = [(ours(model, tokenizer, rows), plain(model, tokenizer, rows)) for _ in range(REPEATS)]
    finally:
        model.generation_config.eos_token_id = own
    rates = [[part["tokens"] / part["cpu"] for part in pair] for pair in pairs]
    ratios = [mine / theirs for mine, theirs in rates]
    return {
        **{"name": "generation", "method": "answers as they end" if ends else "answers of full length"},
        **{"ours": median(r[0] for r in rates), "peer": median(r[1] for r in rates), "ratio": median(ratios)},
        **{"peer_name": "generate in input order", "unit": "tokens a CPU second", "spread": [min(ratios), max(ratios)]},
        **{"n": PROMPTS, "repeats": REPEATS, "tokens": [part["tokens"] for part in pairs[0]]},
        "same_answers": sum(a == b for a, b in zip(*(part["texts"] for part in pairs[0]))) / PROMPTS,
        "seconds": [[part["wall"] for part in pair] for pair in pairs],
        "cpu_seconds": [[part["cpu"] for part in pair] for pair in pairs],
    }


def timed(work) -> dict:
    cpu, wall = time.process_time(), time.perf_counter()
    texts, tokens = work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "texts": texts, "tokens": tokens}


def ours(model, tokenizer, rows: list[dict]) -> dict:
    def work() -> tuple[list[str], int]:
        found = sorted(one for batch in answer(model, tokenizer, rows, {}, NEW, BATCH) for one in batch)
        return [one.text for one in found], sum(one.n_tokens for one in found)

    return timed(work)


def plain(model, tokenizer, rows: list[dict]) -> dict:
    def work() -> tuple[list[str], int]:
        ids, texts, tokens = prompt_ids(tokenizer, rows, {}), [], 0
        end, pad = model.generation_config.eos_token_id, model.generation_config.pad_token_id
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            width = max(map(len, batch))
            inputs = torch.tensor([[pad] * (width - len(row)) + row for row in batch])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
            out = model.generate(inputs, attention_mask=mask, max_new_tokens=NEW, do_sample=False)[:, width:].tolist()
            kept = [row[: row.index(end)] if end in row else row for row in out]
            texts += [tokenizer.decode(row, skip_special_tokens=True) for row in kept]
            tokens += sum(map(len, kept))
        return texts, tokens

    return timed(work)
