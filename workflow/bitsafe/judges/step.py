"""Judging the answers of one replicate with one judge: an answers file in, a verdicts file out, row by row.

A judge is a module with `VERSION` and either of two functions:

- `judge(row, answer, params, kind) -> verdict`, for judges that read one answer at a time and are done at once;
- `judging(setting)`, a context manager that yields a function from the `Asked` of one file to one verdict each, for
  judges that ask many at a time, load a model once, or keep what they were told. It is entered once a cell.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from bitsafe.data.turns import with_conversations
from bitsafe.errors import UserError
from bitsafe.files import read_jsonl, sha256_text, write_jsonl
from bitsafe.generate.store import UNANSWERED
from bitsafe.judges.degenerate import degenerate
from bitsafe.matrix.run import AA

VERDICTS = ("harmful", "safe", "ambiguous", "unscored")


@dataclass(frozen=True)
class Benchmark:
    """What a judge needs to know of a benchmark."""

    kind: str  # harmful, over_refusal or utility
    rows: list[dict]  # as load_benchmark gives them


@dataclass(frozen=True)
class Setting:
    """What a judge is set up with, once a cell."""

    name: str  # of its row
    params: dict[str, Any]
    endpoint: dict[str, Any] = field(default_factory=dict)  # how it is reached; moves no verdict
    reads: Path | None = None  # the file its row names
    run: Path = Path()  # the run's folder


@dataclass(frozen=True)
class Asked:
    """The answers of one file, in the order of the benchmark."""

    benchmark: str
    decoding: str
    kind: str
    items: list[tuple[dict, dict]]  # the prompt's row and the answer's
    folder: Path  # of the replicate: a judge may keep a store of its own in verdicts/
    references: list[str] | None = None  # the answer of full precision to each, where the judge's row is pairwise


JudgeFile = Callable[[Asked], list[dict[str, Any]]]


def unscored(reason: str) -> dict[str, Any]:
    return {"verdict": "unscored", "reason": reason, "refused": None, "value": None}


@contextmanager
def opened(module: ModuleType, setting: Setting) -> Iterator[JudgeFile]:
    """The judge of a module, ready to be given files, whichever of the two functions it has."""
    if hasattr(module, "judging"):
        with module.judging(setting) as judge_file:
            yield judge_file
    else:
        yield lambda asked: [module.judge(row, one["answer"], setting.params, asked.kind) for row, one in asked.items]


def judge_replicate(
    folder: Path,
    name: str,
    judge_file: JudgeFile,
    benchmarks: Mapping[str, Benchmark],
    decodings: list[str],
    samples: int = 1,
    baseline: Path | None = None,
    settings: Mapping[str, list[str]] = MappingProxyType({}),
) -> dict[str, int]:
    """Write verdicts/<name>/<benchmark>.<decoding>.jsonl below `folder` (a replicate's), each whole.

    baseline: the same replicate of full precision, whose answers a pairwise judge compares with.
    settings: those of each grid among the decodings.
    Returns rows by path relative to `folder`. Answers that are not those of the prompts are a UserError.
    """
    files = {}
    for asked in asked_of(folder, benchmarks, decodings, samples, baseline, settings):
        verdicts = [verdict_row(*item, verdict) for item, verdict in zip(asked.items, judged(asked, judge_file))]
        file = f"verdicts/{name}/{asked.benchmark}.{asked.decoding}.jsonl"
        write_jsonl(folder / file, verdicts)
        files[file] = len(verdicts)
    return files


def judged(asked: Asked, judge_file: JudgeFile) -> list[dict[str, Any]]:
    """A verdict for each item; what is no answer of the model is unscored, and no judge sees it."""
    seen, said = answered(asked), {}
    for (row, answer), verdict in zip(seen.items, judge_file(seen), strict=True):
        said[_name(row, answer)] = verdict
    return [said.get(_name(row, one)) or unscored(f"answer: {one['finish']}") for row, one in asked.items]


def answered(asked: Asked) -> Asked:
    """Without the items that hold no answer of the model (`UNANSWERED`)."""
    left = [place for place, (_row, answer) in enumerate(asked.items) if answer.get("finish") not in UNANSWERED]
    references = asked.references and [asked.references[place] for place in left]
    return replace(asked, items=[asked.items[place] for place in left], references=references)


def _name(row: dict, answer: dict) -> tuple:
    return row["id"], answer.get("setting"), answer.get("sample")


def asked_of(
    folder: Path,
    benchmarks: Mapping[str, Benchmark],
    decodings: list[str],
    samples: int = 1,
    baseline: Path | None = None,
    settings: Mapping[str, list[str]] = MappingProxyType({}),
) -> Iterator[Asked]:
    """What a judge is asked about one replicate, file by file."""
    for benchmark, asked in benchmarks.items():
        for decoding in decodings:
            among = settings.get(decoding) or [None]
            items = read_answers(folder / f"answers/{benchmark}.{decoding}.jsonl", asked.rows, samples, among)
            references = None
            if baseline is not None:
                file = baseline / f"answers/{benchmark}.{decoding.removesuffix(AA)}.jsonl"
                references = [answer["answer"] for _, answer in read_answers(file, asked.rows, samples, among)]
            yield Asked(benchmark, decoding, asked.kind, items, folder, references)


def read_answers(
    file: Path, rows: list[dict], samples: int = 1, settings: Sequence[str | None] = (None,)
) -> list[tuple[dict, dict]]:
    """Each prompt, with the conversation before it, and each of its answers, in the order of the benchmark.

    settings: of a grid; None otherwise.
    """
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
    return with_conversations(pairs)


_AGAIN = "delete the file and run `generate` of this cell again"


def verdict_row(row: dict, answer: dict, verdict: dict[str, Any]) -> dict[str, Any]:
    """One verdict, with what later steps group and check by; a judge may itself call an answer degenerate."""
    text = answer["answer"]
    if verdict["verdict"] not in VERDICTS:
        raise ValueError(f"a judge said {verdict['verdict']!r}; it may say {', '.join(VERDICTS)}")
    return {
        "id": row["id"],
        **{name: answer[name] for name in ("setting", "sample") if name in answer},
        "category": row["category"],
        "cluster": row["cluster"],
        **{key: verdict[key] for key in ("verdict", "reason", "refused", "value")},
        "degenerate": answer.get("finish") not in UNANSWERED
        and (bool(verdict.get("degenerate")) or degenerate(text, row["messages"][-1]["content"])),
        **{key: verdict[key] for key in ("said", "right") if key in verdict},
        "answer_sha": sha256_text(text),
    }
