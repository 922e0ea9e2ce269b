"""Answering every benchmark under every decoding with one replicate: one model load, and only for what is missing."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bitsafe.data.turns import following, name_of, waves
from bitsafe.files import sha256_json, write_jsonl
from bitsafe.generate import engine, options
from bitsafe.generate.engines import Ask
from bitsafe.generate.grid import settings_of
from bitsafe.generate.prompts import dressed
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
    asked = each_asked(rows, job.decodings[decoding], job.samples)
    done: dict[tuple, tuple[dict, str]] = {}  # rows as they were put, and their answers
    said: dict[tuple, dict] = {}
    for wave in waves(asked):
        put = [following(asked[i], asked[i], done) for i in wave]
        for item, answer in zip(put, answer_wave(job, store, ask, put, decoding, label, counts)):
            as_put = item | {"messages": dressed(item["messages"], job.decodings[decoding])}
            done[name_of(item, item)], said[name_of(item, item)] = (as_put, answer["answer"]), answer
    named = ("id", "setting", "sample")
    return [{name: item[name] for name in named if name in item} | said[name_of(item, item)] for item in asked]


def answer_wave(
    job: GenerateJob,
    store: AnswerStore,
    ask: Callable[[], Ask],
    asked: list[dict],
    decoding: str,
    label: str,
    counts: Counts,
) -> list[dict]:
    """Answers to rows that wait for no answer of each other, in their order."""
    row = job.decodings[decoding]
    seed = job.seed + row.get("reseed", 0)
    keys = [key_of(job, item, put, seed) for item, put in zip(asked, engine.each_setting(asked, row))]
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    missing = {place for key, place in first.items() if key not in store}
    counts.found += sum(key in store for key in keys)
    if missing:
        arguments = (asked, row, job.max_new_tokens, job.batch_size, seed)
        for batch in ask()(*arguments, wanted=missing, progress=label):
            counts.generated += store.add((keys[one.index], stored(one)) for one in batch)
            counts.tokens += sum(one.n_tokens for one in batch)
    return [store[key] for key in keys]


def stored(one: engine.Answer | options.Choice) -> dict[str, Any]:
    """What is kept of an answer: {"answer", "n_tokens", "finish"}, and of a choice its "options"."""
    said = one._asdict()
    return {"answer": said.pop("text")} | {name: value for name, value in said.items() if name != "index"}


def each_asked(rows: list[dict], decoding: dict[str, Any], samples: int) -> list[dict]:
    """Every prompt with every setting of a grid and every sample: what one answers file holds, in its order."""
    settings = [{"setting": name} for name in settings_of(decoding)] or [{}]
    return [item | setting | {"sample": k} for item in rows for setting in settings for k in range(samples)]


def key_of(job: GenerateJob, item: dict, decoding: dict[str, Any], seed: int) -> str:
    """Content key of an answer: what moves it, and nothing else (names, ids and order do not)."""
    plan = [decoding.get("plan"), job.batch_size]
    drawn = [engine.spoken(decoding), seed, item["sample"], job.max_new_tokens]
    if item.get("choices"):
        drawn = options.asked_by(item, decoding, seed)
    return sha256_json([engine.VERSION, job.told, job.identity, item["messages"], drawn, plan])
