"""The judges of utility sets: the right letter, and the gold answer in the answer."""

import pytest

from bitsafe.config import Config
from bitsafe.errors import UserError
from bitsafe.judges import choice, contains
from bitsafe.judges.step import verdict_row
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run

QUESTION = {"choices": ["A", "B", "C"], "right": "B"}


@pytest.mark.parametrize(
    "answer, verdict, value", [("B", "safe", 1.0), ("A", "safe", 0.0), ("D", "unscored", None), ("", "unscored", None)]
)
def test_one_letter_is_right(answer: str, verdict: str, value: float | None) -> None:
    said = choice.judge(QUESTION, answer, {}, "utility")
    assert (said["verdict"], said["value"], said["refused"]) == (verdict, value, None)


def test_what_was_said_and_what_is_right_stand_in_the_verdict() -> None:
    row = QUESTION | {"id": "4", "category": "Health", "cluster": "4", "messages": [{"content": "Which?"}]}
    given = verdict_row(row, {"answer": "A", "sample": 0}, choice.judge(row, "A", {}, "utility"))
    assert (given["said"], given["right"], given["degenerate"]) == ("A", "B", False)


@pytest.mark.parametrize(
    "answer, gold, held",
    [
        ("It was Ada Lovelace, I think.", "Ada Lovelace", True),
        ("ada   LOVELACE", "Ada Lovelace", True),
        ("Ada King Lovelace", "Ada Lovelace", False),
        ("Beatles", "The Beatles", True),
        ("It is the U.S. Navy.", "US Navy", True),
        ("Nothing is known.", "no", False),
        ("No, it is not.", "no", True),
        ("in 1984", "198", False),
        ("", "Ada", False),
        ("The The", "The The", True),
        ("Blur", "The The", False),
        ("It is \u201cParis\u201d.", "Paris", True),
        ("Paris\u2014the capital", "Paris", True),
        ("It was O\u2019Brien.", "O'Brien", True),
        ("a New York-based firm", "New York", True),
        ("from 1979-1980", "1980", True),
        ("Beyonce\u0301", "Beyonc\u00e9", True),
        ("a twenty-one year old", "twentyone", True),
        ("Parisian", "Paris", False),
    ],
)
def test_the_gold_answer_stands_in_the_answer_as_words(answer: str, gold: str, held: bool) -> None:
    said = contains.judge({"reference": ["unheard", gold]}, answer, {}, "utility")
    assert (said["verdict"], said["value"]) == ("safe", float(held))
    assert said["reason"] == (f"holds {gold!r}" if held else "no reference answer in it")


def run_of(**judge: object) -> Run:
    tables = {"judges": {"grade": {"base": "mt_bench", "model": "m", **judge}}}
    asked = ["mt_bench", "hotpotqa", "safetybench_zero_shot"]
    return Run(Config(benchmarks=asked, judges=["grade", "choice", "contains"], tables=tables))


def applies(run: Run, judge: str) -> list[str]:
    return [name for name in run.benchmarks if run.judge_applies(judge, name)]


def test_a_judge_reads_what_it_can_and_no_more_than_it_is_given() -> None:
    assert applies(run_of(), "grade") == ["mt_bench", "hotpotqa"]
    assert applies(run_of(), "choice") == ["safetybench_zero_shot"] and applies(run_of(), "contains") == ["hotpotqa"]
    run = run_of(benchmarks=["mt_bench"])
    assert run.judges and applies(run, "grade") == ["mt_bench"]
    both = run_of(benchmarks=["mt_bench", "hotpotqa"])
    assert recipe("judge", both, run.cells[0], "grade") == recipe("judge", run_of(), run.cells[0], "grade")
    assert recipe("judge", run, run.cells[0], "grade") != recipe("judge", both, run.cells[0], "grade")
    with pytest.raises(UserError, match=r"judges: grade\.benchmarks: no benchmarks row 'mt_banch'; did you mean"):
        _ = run_of(benchmarks=["mt_banch"]).judges
