"""Answering every benchmark under every decoding with one replicate: one model load, and only for what is missing."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bitsafe.files import sha256_json, write_jsonl
from bitsafe.generate import engine
from bitsafe.generate.engines import Ask
from bitsafe.generate.grid import settings_of
from bitsafe.generate.store import AnswerStore

STORE = "answers.store.jsonl"


@dataclass(frozen=True)
class GenerateJob:
    """What one replicate is asked."""

    opened: Callable[[], AbstractContextManager[Ask]]  # entered once, and only if an answer is missing
    told: Any  # JSON: what of the engine moves an answer
    identity: Any  # JSON that pins the weights and tokenizer: the artefact's sha256 and the dtype it is loaded in
    folder: Path  # of the replicate: answers/ and the store lie there
    benchmarks: Mapping[str, list[dict]]  # rows as load_benchmark gives them
    decodings: Mapping[str, dict[str, Any]]  # rows of decodings.yaml; `second_arm(row)` for an A/A run
    max_new_tokens: int
    batch_size: int
    seed: int = 0
    samples: int = 1  # answers drawn for each prompt


@dataclass
class Counts:
    """What a job found in the store and what it generated."""

    found: int = 0
    generated: int = 0
    tokens: int = 0
    files: dict[str, int] = field(default_factory=dict)  # rows by path relative to the replicate's folder


def second_arm(decoding: dict[str, Any]) -> dict[str, Any]:
    """The same decoding asked again for the noise floor: another seed and another batch plan."""
    return decoding | {"plan": "shuffled", "reseed": 1}


def generate_replicate(job: GenerateJob) -> Counts:
    """Write answers/<benchmark>.<decoding>.jsonl, each whole; rows already in the store are not asked again."""
    counts = Counts()
    with AnswerStore(job.folder / STORE) as store, ExitStack() as stack:
        ask = cache(lambda: stack.enter_context(job.opened()))
        for benchmark, rows in job.benchmarks.items():
            for decoding in job.decodings:
                file = f"answers/{benchmark}.{decoding}.jsonl"
                answers = answer_all(job, store, ask, rows, decoding, f"{benchmark} {decoding}", counts)
                write_jsonl(job.folder / file, answers)
                counts.files[file] = len(answers)
    return counts


def answer_all(
    job: GenerateJob,
    store: AnswerStore,
    ask: Callable[[], Ask],
    rows: list[dict],
    decoding: str,
    label: str,
    counts: Counts,
) -> list[dict]:
    """Answer rows of one benchmark under one decoding, in the order of the benchmark, settings and samples together."""
    row = job.decodings[decoding]
    seed = job.seed + row.get("reseed", 0)
    asked = each_asked(rows, row, job.samples)
    keys = [key_of(job, item, put, seed) for item, put in zip(asked, engine.each_setting(asked, row))]
    missing = {place for place, key in enumerate(keys) if key not in store}
    counts.found += len(asked) - len(missing)
    if missing:
        arguments = (asked, row, job.max_new_tokens, job.batch_size, seed)
        for batch in ask()(*arguments, wanted=missing, progress=label):
            counts.generated += store.add(
                (keys[one.index], {"answer": one.text, "n_tokens": one.n_tokens, "finish": one.finish}) for one in batch
            )
            counts.tokens += sum(one.n_tokens for one in batch)
    said = ("id", "setting", "sample")
    return [{name: item[name] for name in said if name in item} | store[key] for item, key in zip(asked, keys)]


def each_asked(rows: list[dict], decoding: dict[str, Any], samples: int) -> list[dict]:
    """Every prompt with every setting of a grid and every sample: what one answers file holds, in its order."""
    settings = [{"setting": name} for name in settings_of(decoding)] or [{}]
    return [item | setting | {"sample": k} for item in rows for setting in settings for k in range(samples)]


def key_of(job: GenerateJob, item: dict, decoding: dict[str, Any], seed: int) -> str:
    """Content key of an answer: what moves it, and nothing else (names, ids and order do not)."""
    plan = [decoding.get("plan"), job.batch_size]
    drawn = [engine.spoken(decoding), seed, item["sample"], job.max_new_tokens]
    return sha256_json([engine.VERSION, job.told, job.identity, item["messages"], drawn, plan])
