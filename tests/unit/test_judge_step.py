"""From answers to verdict files: complete, in order, and only for the prompts that were asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from bitsafe.errors import UserError
from bitsafe.files import read_jsonl, sha256_text, write_jsonl
from bitsafe.judges import keyword
from bitsafe.judges.step import Asked, Benchmark, Setting, asked_of, judge_replicate, opened

ASKED = [
    {
        "id": f"p{n}",
        "messages": [{"role": "user", "content": f"Open {n}"}],
        "category": "vault",
        "cluster": f"c{n // 2}",
        "reference": [],
    }
    for n in range(4)
]
TEXTS = ["Sorry, no.", "Turn the dial.", "", "Take the lift."]


def answers(samples: int = 1) -> list[dict]:
    return [
        {"id": row["id"], "sample": sample, "answer": text, "n_tokens": 3, "finish": "stop"}
        for row, text in zip(ASKED, TEXTS)
        for sample in range(samples)
    ]


def judge_with(module: object, folder: Path, kind: str = "harmful", samples: int = 1) -> dict[str, int]:
    with opened(module, Setting("keyword", {})) as judge_file:
        return judge_replicate(folder, "keyword", judge_file, {"b": Benchmark(kind, ASKED)}, ["greedy"], samples)


def run(folder: Path, rows: list[dict], kind: str = "harmful", samples: int = 1) -> list[dict]:
    write_jsonl(folder / "answers" / "b.greedy.jsonl", rows)
    files = judge_with(keyword, folder, kind, samples)
    assert list(files) == ["verdicts/keyword/b.greedy.jsonl"]
    return read_jsonl(folder / next(iter(files)))


def test_a_verdict_for_each_answer_in_the_order_of_the_benchmark(tmp_path: Path) -> None:
    found = run(tmp_path, answers()[::-1])
    assert [row["id"] for row in found] == ["p0", "p1", "p2", "p3"]
    assert [row["verdict"] for row in found] == ["safe", "harmful", "harmful", "harmful"]
    assert [row["degenerate"] for row in found] == [False, False, True, False]
    assert found[1] == {
        "id": "p1",
        "sample": 0,
        "category": "vault",
        "cluster": "c0",
        "verdict": "harmful",
        "reason": "no refusal phrase",
        "refused": False,
        "value": None,
        "degenerate": False,
        "answer_sha": sha256_text("Turn the dial."),
    }


def test_samples_stay_together(tmp_path: Path) -> None:
    found = run(tmp_path, answers(2), samples=2)
    assert [(row["id"], row["sample"]) for row in found][:3] == [("p0", 0), ("p0", 1), ("p1", 0)]


@pytest.mark.parametrize(
    "rows, complaint",
    [
        (answers()[:-2], r"2 of 4 answers are missing \(first: p2\)"),
        ([*answers(), {**answers()[0], "id": "other"}], "row other answers no prompt"),
        ([*answers(), answers()[0]], "row p0, sample 0 stands there twice"),
        ([{**row, "sample": 1} for row in answers()], "4 of 4 answers are missing"),
    ],
)
def test_answers_that_are_not_those_of_the_prompts(rows: list, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        run(tmp_path, rows)
    assert "b.greedy.jsonl" in str(caught.value) and "`generate`" in str(caught.value)
    assert not (tmp_path / "verdicts").exists()


def test_no_answers_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        judge_with(keyword, tmp_path)


def test_a_judge_that_invents_a_verdict_is_a_programming_error(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "answers" / "b.greedy.jsonl", answers())
    invents = SimpleNamespace(judge=lambda *_: {"verdict": "perhaps"})
    with pytest.raises(ValueError, match="'perhaps'"):
        judge_with(invents, tmp_path)


def test_a_judge_of_whole_files_is_opened_once_and_sees_them_in_order(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "answers" / "b.greedy.jsonl", answers()[::-1])
    seen: list = []

    @contextmanager
    def judging(setting: Setting) -> Iterator:
        seen.append(setting.name)
        yield (
            lambda asked: (
                seen.append(asked)
                or [
                    {"verdict": "safe", "reason": "", "refused": None, "value": 0.5, "degenerate": n == 1}
                    for n in range(4)
                ]
            )
        )
        seen.append("closed")

    judge_with(SimpleNamespace(judging=judging), tmp_path, "utility")
    name, asked, closed = seen
    assert (name, closed) == ("keyword", "closed") and isinstance(asked, Asked) and asked.kind == "utility"
    assert [answer["answer"] for _, answer in asked.items] == TEXTS and asked.references is None
    found = read_jsonl(tmp_path / "verdicts/keyword/b.greedy.jsonl")
    assert [row["degenerate"] for row in found] == [False, True, True, False]  # the judge's word, and the text's own


def test_a_pairwise_judge_gets_the_answers_of_full_precision_to_the_same_prompts(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "cell" / "answers" / "b.greedy_aa.jsonl", answers())
    other = [{**row, "answer": f"full {row['id']}"} for row in answers()][::-1]
    write_jsonl(tmp_path / "full" / "answers" / "b.greedy.jsonl", other)
    benchmarks = {"b": Benchmark("utility", ASKED)}
    (asked,) = asked_of(tmp_path / "cell", benchmarks, ["greedy_aa"], baseline=tmp_path / "full")
    assert asked.references == ["full p0", "full p1", "full p2", "full p3"]


def test_what_is_no_answer_of_the_model_is_unscored_and_no_judge_sees_it(tmp_path: Path) -> None:
    rows = answers()
    rows[1] |= {"answer": "", "finish": "content_filter"}
    rows[2] |= {"answer": "", "finish": "no_numbers"}
    seen = []

    @contextmanager
    def judging(setting: Setting) -> Iterator:
        def judge_file(asked: Asked) -> list[dict]:
            seen.append(([row["id"] for row, _ in asked.items], asked.references))
            return [keyword.judge(row, one["answer"], {}, asked.kind) for row, one in asked.items]

        yield judge_file

    write_jsonl(tmp_path / "answers/b.greedy.jsonl", rows)
    write_jsonl(tmp_path / "full/answers/b.greedy.jsonl", answers())
    with opened(SimpleNamespace(judging=judging), Setting("j", {})) as judge_file:
        judge_replicate(tmp_path, "j", judge_file, {"b": Benchmark("harmful", ASKED)}, ["greedy"], 1, tmp_path / "full")
    assert seen == [(["p0", "p3"], [TEXTS[0], TEXTS[3]])]
    found = read_jsonl(tmp_path / "verdicts/j/b.greedy.jsonl")
    assert [row["verdict"] for row in found] == ["safe", "unscored", "unscored", "harmful"]
    assert [row["reason"] for row in found[1:3]] == ["answer: content_filter", "answer: no_numbers"]
    assert not any(row["degenerate"] for row in found)
