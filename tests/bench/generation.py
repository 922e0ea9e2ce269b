"""generation: SmolLM2-135M's answers to prompts of mixed length, against what transformers offers.

All decode greedily on one thread in the same arithmetic. Plain `generate` takes the prompts as they come, in batches of
the same size, each padded to its longest; `generate_batch`, its continuous batching, has room for as many rows. Told in
tokens of answers a processor second, the sides taking turns. A row leaves out the end token: every answer has its full
length, and only order and loop differ.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from tests.bench.smollm2 import CHECKPOINT, prepare

from bitsafe.artefacts.load import load_dense
from bitsafe.files import sha256_json
from bitsafe.generate.device import place
from bitsafe.generate.engine import answer
from bitsafe.generate.prompts import prompt_ids

PROMPTS, NEW, BATCH, REPEATS = 24, 48, 8, 2
NAMES = {"plain": "generate in input order", "continuous": "generate_batch, continuous batching"}
BLOCK = 32  # tokens of a block of the paged cache
WORDS = (8, 16, 32, 64, 128, 256)  # of the prompts, in turns, then shuffled
TEXT = "river mill bridge children village fish harvest weather price bread market town road field house garden"


def run() -> list[dict]:
    if not (CHECKPOINT / "config.json").exists():
        prepare()
    model, tokenizer = load_dense(CHECKPOINT, "bfloat16")
    model, rows = place(model), prompts()
    asked = [(plain, True), (plain, False), (continuous, True)]
    found = [compared(model, tokenizer, rows, peer, ends) for peer, ends in asked]
    return [*found, roofline(model, tokenizer, rows), profile(model, tokenizer, rows), halves()]


def prompts() -> list[dict]:
    """Requests of many lengths in random order; the first words differ, so that no two begin alike."""
    lengths = [WORDS[k % len(WORDS)] for k in range(PROMPTS)]
    words = TEXT.split()
    texts = [" ".join(words[(7 * k + j) % len(words)] for j in range(length)) for k, length in enumerate(lengths)]
    order = sorted(range(PROMPTS), key=lambda k: sha256_json(["generation", k]))
    return [{"messages": [{"role": "user", "content": f"Note {k}. Say in a word: {texts[k]}"}]} for k in order]


def compared(model, tokenizer, rows: list[dict], peer: Callable, ends: bool) -> dict:
    own = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = own if ends else -1
    try:
        pairs = [(ours(model, tokenizer, rows), peer(model, tokenizer, rows)) for _ in range(REPEATS)]
    finally:
        model.generation_config.eos_token_id = own
    rates = [[part["tokens"] / part["cpu"] for part in pair] for pair in pairs]
    ratios = [mine / theirs for mine, theirs in rates]
    return {
        **{"name": "generation", "method": "answers as they end" if ends else "answers of full length"},
        **{"ours": median(r[0] for r in rates), "peer": median(r[1] for r in rates), "ratio": median(ratios)},
        **{"peer_name": NAMES[peer.__name__], "unit": "tokens a CPU second", "spread": [min(ratios), max(ratios)]},
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


def continuous(model, tokenizer, rows: list[dict]) -> dict:
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    end, pad = model.generation_config.eos_token_id, model.generation_config.pad_token_id
    ids = prompt_ids(tokenizer, rows, {})
    longest = -(-(max(map(len, ids)) + NEW) // BLOCK)
    room = ContinuousBatchingConfig(
        block_size=BLOCK, num_blocks=BATCH * longest, max_batch_tokens=BATCH * BLOCK, max_requests_per_batch=BATCH
    )
    asked = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=end, pad_token_id=pad)

    def work() -> tuple[list[str], int]:
        out = model.generate_batch(ids, generation_config=asked, continuous_batching_config=room, warmup=False)
        found = [out[f"req_{k}"].generated_tokens for k in range(len(ids))]
        kept = [row[: row.index(end)] if end in row else row for row in found]
        return [tokenizer.decode(row, skip_special_tokens=True) for row in kept], sum(map(len, kept))

    own = model.config._attn_implementation
    try:
        return timed(work)
    finally:
        model.set_attn_implementation(own)  # it leaves its own behind


def roofline(model, tokenizer, rows: list[dict]) -> dict:
    """Our CPU seconds against the least that this machine could take for the same forward passes.

    Of each pass the larger of its arithmetic (2 operations a weight and token, at the measured rate of a large matrix
    product; the head's weights only for a row's last token) and of reading its weights once (at the measured
    bandwidth). Attention, which grows with the length, and everything that is no matrix product are left out.
    """
    weights, head = sum(one.numel() for one in model.parameters()), model.get_output_embeddings().weight.numel()
    passes: list[torch.Size] = []  # rows, tokens
    hook = model.register_forward_pre_hook(
        lambda _module, args, kwargs: passes.append(kwargs.get("input_ids", args[0] if args else None).shape),
        with_kwargs=True,
    )
    try:
        spent = ours(model, tokenizer, rows)
    finally:
        hook.remove()
    rate, bandwidth = matrix_rate(), read_rate()
    size = weights * next(model.parameters()).element_size()
    products = [2 * ((weights - head) * read.numel() + head * read[0]) for read in passes]
    bound = sum(max(operations / rate, size / bandwidth) for operations in products)
    return {
        **{
            "name": "generation",
            "method": "roofline",
            "ours": spent["cpu"],
            "peer": bound,
            "ratio": spent["cpu"] / bound,
        },
        **{"peer_name": "matrix products and weights read, at the machine's rates", "unit": "CPU s", "spread": None},
        **{
            "n": PROMPTS,
            "tokens": spent["tokens"],
            "passes": len(passes),
            "tokens_read": sum(map(torch.Size.numel, passes)),
        },
        **{"gflops": rate / 1e9, "gb_per_second": bandwidth / 1e9, "weights": weights},
    }


def profile(model, tokenizer, rows: list[dict]) -> dict:
    """Where our seconds go, by torch's profiler: matrix products against all of it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        ours(model, tokenizer, rows)
    spent = {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}
    kinds = {"products": ("aten::mm", "aten::addmm", "aten::bmm"), "copies": ("aten::copy_", "aten::cat")}
    seconds = {kind: sum(spent.get(name, 0) for name in names) for kind, names in kinds.items()}
    seconds["attention"] = sum(value for name, value in spent.items() if "scaled_dot_product" in name)
    return {
        **{"name": "generation", "method": "profile", "ours": seconds["products"], "peer": sum(spent.values())},
        **{"ratio": seconds["products"] / sum(spent.values()), "unit": "s of matrix products", "spread": None},
        **{"peer_name": "all of our loop under torch's profiler", "n": PROMPTS, "seconds": seconds},
    }


def halves() -> dict:
    """bfloat16 against float32, operations a second of one large product: why a CPU may be better off with float32."""
    half, single = (matrix_rate(dtype=dtype) / 1e9 for dtype in (torch.bfloat16, torch.float32))
    row = {"name": "generation", "method": "bfloat16 product", "ours": half, "peer": single, "ratio": half / single}
    return row | {"peer_name": "float32 product", "unit": "GFLOP/s", "n": 1, "spread": None}


def best_of(work: Callable[[], object], repeats: int = 5) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def matrix_rate(rows: int = 512, size: int = 1536, dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of a product on one thread."""
    left, right = torch.randn(rows, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    return 2 * rows * size * size / best_of(lambda: left @ right)


def read_rate(size: int = 64_000_000) -> float:
    """Bytes a second that a matrix too large for any cache is read with, for one row: a product without reuse."""
    matrix, row = torch.randn(size // 4096, 4096), torch.randn(4096)
    return matrix.numel() * matrix.element_size() / best_of(lambda: matrix @ row)
