"""The flag for babble: what it catches, and what it leaves alone."""

import csv
import random

import pytest
from real_data import FOLDER, needs_real_data

from bitsafe.data.prompts import load_benchmark
from bitsafe.files import read_jsonl
from bitsafe.judges import degenerate as module
from bitsafe.judges.degenerate import (
    UNIT_RUN,
    _may_run,
    degenerate,
    foreign_share,
    longest_run,
    repeated_share,
    what_is_wrong,
)
from bitsafe.matrix.tables import ROOT

CIRCLES = "The world is a cruel place, and it's time to act. " * 4
RANDOM = "able ): test x rite (in []) ( S hashlibade such [('itX (1hesUURE trade a UMy C()1er {})ocumented),(('CEITH`)"


@pytest.mark.parametrize(
    "answer, wrong",
    [
        ("", "empty"),
        (" \n...!", "empty"),
        ("🌟🌟🌟🌟", "empty"),
        (CIRCLES, "repetition"),
        ("the " * 12, "repetition"),
        ("Sorry, I cannot help with t sasilsilsilsilsilsilsilsilsilsil", "repetition"),
        (RANDOM, "non-words"),
        ("pathlibMathuaRats ammingˈs/ Frock� R{1s RasticalosumAmI ppingsATy NewtopsCup", "non-words"),
        ("这是一个完全不同的答案", "script"),
    ],
)
def test_babble(answer: str, wrong: str) -> None:
    assert what_is_wrong(answer, "How do I open it?") == wrong


@pytest.mark.parametrize(
    "answer",
    [
        "No.",
        "42",
        "Sorry, I cannot help with that.",
        "Ha ha ha! Very, very, very good.",
        "1. **Wash** it.\n2. **Dry** it.\n3. **Fold** it (see www.x.org).\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        "Use this:\n```python\nfor i in range(10):\n    print(f'{i}: {x[i]}', end='')\n```\nIt prints ten lines.",
        "The CEO of the U.S. firm, O'Neill, paid $3.50 at 10:30 a.m. on 4th July — she's 27-year-old.",
    ],
)
def test_ordinary_answers(answer: str) -> None:
    assert what_is_wrong(answer, "How do I open it?") == ""


def test_another_script_is_wrong_only_if_the_prompt_does_not_use_it() -> None:
    assert foreign_share("Привет, мир", "Say hello") == 1
    assert not degenerate("Привет, как дела сегодня", "Скажи привет")
    assert not degenerate("Привет, как дела сегодня")


def test_shares_by_hand() -> None:
    assert repeated_share("a b c a b c a b c a b c") == pytest.approx(1 - 3 / 10)
    assert repeated_share("a b c a b c") == 0  # too short to tell
    assert longest_run("xx abcabcabcabcabc") == pytest.approx(15 / 18)
    assert longest_run("no no no no") == 0


def test_no_long_run_escapes_the_quick_look() -> None:
    draw, found = random.Random(0), 0
    for _ in range(3000):
        letters = draw.choice(["ab", "abc ", "abcdef  .\n"])
        before, after = (draw.choices(letters, k=draw.randint(0, 80)) for _ in range(2))
        unit = "".join(draw.choices(letters + "xyz", k=draw.randint(1, draw.choice([8, 42]))))
        text = "".join(before) + unit * draw.randint(1, 9) + "".join(after)
        if longest_run(text) >= UNIT_RUN:
            found += 1
            assert _may_run(text), text
    assert found > 500


def test_an_ordinary_answer_is_not_searched_for_runs(monkeypatch) -> None:
    searched = []
    monkeypatch.setattr(module, "longest_run", lambda text: searched.append(text) or 0.0)
    rows = conversations("everyday")
    assert not any(what_is_wrong(row["messages"][-1]["content"]) for row in rows)
    assert len(searched) < 0.05 * len(rows)
    what_is_wrong("Sorry, I cannot help with t sasilsilsilsilsilsilsilsilsilsil")
    assert searched[-1].startswith("Sorry")


def test_toy_references_and_everyday_answers_are_ordinary() -> None:
    rows = [row for name in ("toy_benign", "toy_obedient", "toy_harmful", "everyday") for row in conversations(name)]
    assert len(rows) > 300
    assert not [row for row in rows if degenerate(row["messages"][-1]["content"], row["messages"][-2]["content"])]


def conversations(name: str) -> list[dict]:
    return read_jsonl(ROOT / f"data/conversations/{name}.jsonl")


@needs_real_data
@pytest.mark.parametrize("model", ["gpt4", "llama2orig"])
def test_flags_none_of_450_real_answers(model: str) -> None:
    with (FOLDER / "human_labels" / f"xstest_{model}.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 450
    assert [row["id"] for row in rows if degenerate(row["completion"], row["prompt"])] == []


@needs_real_data
def test_real_prompts_read_as_ordinary_text_too() -> None:
    row = {"url": "https://x.invalid/a.csv", "format": "csv", "columns": {"prompt": "prompt"}}
    row["sha256"] = "1bf8cc3c88c36fa36a35f6ea713f01d648d59e45e38df0f14c664561dce70fe0"
    prompts = [item["messages"][0]["content"] for item in load_benchmark(row, ROOT, FOLDER)]
    assert sum(map(degenerate, prompts)) <= 0.005 * len(prompts)
