"""Judging the answers of one replicate with one judge: an answers file in, a verdicts file out, row by row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bitsafe.errors import UserError
from bitsafe.files import read_jsonl, sha256_text, write_jsonl
from bitsafe.judges.degenerate import degenerate

Judge = Callable[[dict, str, dict, str], dict[str, Any]]

VERDICTS = ("harmful", "safe", "ambiguous", "unscored")


@dataclass(frozen=True)
class Benchmark:
    """What a judge needs to know of a benchmark."""

    kind: str  # harmful, over_refusal or utility
    rows: list[dict]  # as load_benchmark gives them


def judge_replicate(
    folder: Path,
    name: str,
    judge: Judge,
    params: dict[str, Any],
    benchmarks: Mapping[str, Benchmark],
    decodings: list[str],
    samples: int = 1,
    settings: Mapping[str, list[str]] = MappingProxyType({}),
) -> dict[str, int]:
    """Write verdicts/<name>/<benchmark>.<decoding>.jsonl below `folder` (a replicate's), each whole.

    settings: those of each grid among the decodings. Returns rows by path relative to `folder`. Answers that are not
    those of the prompts are a UserError.
    """
    files = {}
    for benchmark, asked in benchmarks.items():
        for decoding in decodings:
            file = folder / f"answers/{benchmark}.{decoding}.jsonl"
            answers = read_answers(file, asked.rows, samples, settings.get(decoding) or [None])
            verdicts = [verdict_row(judge, row, answer, params, asked.kind) for row, answer in answers]
            file = f"verdicts/{name}/{benchmark}.{decoding}.jsonl"
            write_jsonl(folder / file, verdicts)
            files[file] = len(verdicts)
    return files


def read_answers(
    file: Path, rows: list[dict], samples: int = 1, settings: Sequence[str | None] = (None,)
) -> list[tuple[dict, dict]]:
    """Each prompt with each of its answers, in the order of the benchmark. settings: of a grid; None otherwise."""
    found: dict[tuple, dict] = {}
    for answer in read_jsonl(file):
        key = (answer.get("id"), answer.get("setting"), answer.get("sample"))
        if key in found:
            raise UserError(f"{file}: row {key[0]}, sample {key[2]} stands there twice: {_AGAIN}")
        found[key] = answer
    asked = [(row, setting, sample) for row in rows for setting in settings for sample in range(samples)]
    pairs = [(row, found.pop((row["id"], setting, sample), None)) for row, setting, sample in asked]
    missing = [row["id"] for row, answer in pairs if answer is None]
    if missing:
        raise UserError(f"{file}: {len(missing)} of {len(pairs)} answers are missing (first: {missing[0]}): {_AGAIN}")
    if found:
        raise UserError(f"{file}: row {next(iter(found))[0]} answers no prompt of the benchmark: {_AGAIN}")
    return pairs


_AGAIN = "delete the file and run `generate` of this cell again"


def verdict_row(judge: Judge, row: dict, answer: dict, params: dict[str, Any], kind: str) -> dict[str, Any]:
    """One verdict, with what later steps group and check by."""
    text = answer["answer"]
    verdict = judge(row, text, params, kind)
    if verdict["verdict"] not in VERDICTS:
        raise ValueError(f"a judge said {verdict['verdict']!r}; it may say {', '.join(VERDICTS)}")
    return {
        "id": row["id"],
        **{name: answer[name] for name in ("setting", "sample") if name in answer},
        "category": row["category"],
        "cluster": row["cluster"],
        **{key: verdict[key] for key in ("verdict", "reason", "refused", "value")},
        "degenerate": degenerate(text, row["messages"][-1]["content"]),
        "answer_sha": sha256_text(text),
    }
