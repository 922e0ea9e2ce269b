"""Sets that need more than columns: small files in the published shapes become rows that a scorer can read."""

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from bitsafe.data.prompts import load_benchmark
from bitsafe.errors import UserError
from bitsafe.files import sha256_file
from bitsafe.matrix.tables import Tables


def put(folder: Path, file: str, value: object) -> dict:
    """Write a file in the format of its suffix; the keys of a row that pin it."""
    path = folder / file
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in value))
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(value), path)
    else:
        path.write_text(json.dumps(value))
    return {"url": f"https://x.invalid/{file}", "sha256": sha256_file(path), "format": path.suffix[1:]}


def rows(folder: Path, task: str, main: dict, **beside: dict) -> list[dict]:
    asks = "choice" if task == "safety_bench" else None
    row = {"name": task, "task": f"bitsafe.data.tasks.{task}", "asks": asks, **main, "beside": beside}
    return load_benchmark(row, folder, folder)


QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Shorten it."]},
    {
        "question_id": 101,
        "category": "reasoning",
        "turns": ["You pass.", "And now?"],
        "reference": ["Second.", "None."],
    },
]


def test_mt_bench_has_a_row_a_turn(tmp_path: Path) -> None:
    found = rows(tmp_path, "mt_bench", put(tmp_path, "question.jsonl", QUESTIONS))
    said = ("Write.", "Shorten it.", "You pass.", "And now?")
    assert [item["messages"] for item in found] == [[{"role": "user", "content": text}] for text in said]
    named = [(item["id"], item.get("after"), item["cluster"]) for item in found]
    assert named == [("81", None, "81"), ("81-2", "81", "81"), ("101", None, "101"), ("101-2", "101", "101")]
    assert found[0]["extra"] == {"turns": ["Write.", "Shorten it."], "reference_answers": None, "turn": 1}
    assert found[3]["extra"]["reference_answers"] == ["Second.", "None."] and found[3]["category"] == "reasoning"


def test_a_limit_may_cut_a_conversation_short_but_a_sample_may_not_tear_it(tmp_path: Path) -> None:
    pinned = put(tmp_path, "question.jsonl", QUESTIONS)
    assert [item["id"] for item in rows(tmp_path, "mt_bench", pinned | {"limit": 3})] == ["81", "81-2", "101"]
    with pytest.raises(UserError, match=r"row \S+-2 goes on after row \S+, which is left out: take `limit`"):
        [rows(tmp_path, "mt_bench", pinned | {"sample": n}) for n in (1, 2, 3)]


def test_later_turns_of_two_conversations_may_say_the_same(tmp_path: Path) -> None:
    same = [QUESTIONS[0] | {"question_id": n, "turns": [f"Write {n}.", "Shorten it."]} for n in (1, 2)]
    assert len(rows(tmp_path, "mt_bench", put(tmp_path, "question.jsonl", same))) == 4


def test_mt_bench_takes_the_answers_that_stand_beside(tmp_path: Path) -> None:
    answers = [{"question_id": 101, "choices": [{"index": 0, "turns": ["2nd", "no"]}]}]
    beside = put(tmp_path, "gpt-4.jsonl", answers)
    found = rows(tmp_path, "mt_bench", put(tmp_path, "question.jsonl", QUESTIONS), reference_answers=beside)
    assert [item["extra"]["reference_answers"] for item in found[::2]] == [None, ["2nd", "no"]]


def test_alpaca_eval_keeps_the_baseline(tmp_path: Path) -> None:
    record = {"instruction": "Name actors.", "output": "Some.", "generator": "old", "dataset": "koala"}
    (item,) = rows(tmp_path, "alpaca_eval", put(tmp_path, "alpaca_eval.json", [record]))
    assert item["messages"][0]["content"] == "Name actors." and (item["id"], item["category"]) == ("1", "koala")
    assert item["extra"] == {"baseline": "Some.", "baseline_model": "old"}


TEST_EN = [{"id": 4, "category": "Health", "question": "Which is safe? ", "options": ["one", "two", "three"]}]
EXAMPLES = {"Health": [{"question": "Shown?", "options": ["Yes.", "No."], "answer": 0}]}


ANSWERS = {"4": {"category": "Health", "answer": 2}}
FIVE_SHOT = '''Each question has one right option. Answer with its letter.

Question: """Shown?"""
Options: """A. Yes.
B. No."""
Answer: A

Question: """Which is safe?"""
Options: """A. one
B. two
C. three"""'''


def test_safety_bench_joins_questions_answers_and_examples(tmp_path: Path) -> None:
    beside = {"answers": put(tmp_path, "answers.json", ANSWERS), "examples": put(tmp_path, "dev_en.json", EXAMPLES)}
    (item,) = rows(tmp_path, "safety_bench", put(tmp_path, "test_en.json", TEST_EN), **beside)
    assert item["messages"] == [{"role": "user", "content": FIVE_SHOT}]
    assert (item["choices"], item["opens"], item["right"]) == (["A", "B", "C"], "Answer:", "C")
    assert item["extra"] == {"options": ["one", "two", "three"], "answer": 2, "examples": EXAMPLES["Health"]}
    assert (item["id"], item["category"]) == ("4", "Health")


def test_safety_bench_without_examples_shows_none(tmp_path: Path) -> None:
    answers = put(tmp_path, "answers.json", ANSWERS)
    (item,) = rows(tmp_path, "safety_bench", put(tmp_path, "test_en.json", TEST_EN), answers=answers)
    shown = FIVE_SHOT.split("\n\n")
    assert item["messages"][0]["content"] == f"{shown[0]}\n\n{shown[2]}" and item["extra"]["examples"] == []


def test_options_and_their_key_belong_together(tmp_path: Path) -> None:
    answers, main = put(tmp_path, "answers.json", ANSWERS), put(tmp_path, "test_en.json", TEST_EN)
    with pytest.raises(UserError, match=r"safety_bench\.asks: None: `choice` is for rows with options"):
        rows(tmp_path, "safety_bench", main | {"asks": None}, answers=answers)


def test_a_question_without_its_answer_is_an_error(tmp_path: Path) -> None:
    beside = {"answers": put(tmp_path, "answers.json", {}), "examples": put(tmp_path, "dev_en.json", EXAMPLES)}
    with pytest.raises(
        UserError, match=r"safety_bench\.task: .*test_en\.json is not what .* reads \(KeyError\('4'\)\)"
    ):
        rows(tmp_path, "safety_bench", put(tmp_path, "test_en.json", TEST_EN), **beside)


def test_hotpot_qa_puts_the_paragraphs_before_the_question(tmp_path: Path) -> None:
    record = {
        "id": "h1", "question": "Who?", "answer": "Ada", "type": "bridge", "level": "hard",
        "supporting_facts": {"title": ["B", "B"], "sent_id": [0, 1]},
        "context": {"title": ["A", "B"], "sentences": [["First."], ["Second.", " Third."]]},
    }  # fmt: skip
    (item,) = rows(tmp_path, "hotpot_qa", put(tmp_path, "validation.parquet", [record]))
    assert item["messages"][0]["content"].endswith("\n\nA: First.\n\nB: Second. Third.\n\nQuestion: Who?")
    assert item["reference"] == ["Ada"] and item["extra"]["supporting"] == ["B"] and item["category"] == "bridge"
    assert item["extra"]["paragraphs"][1] == {"title": "B", "text": "Second. Third."}


def test_a_task_enters_the_recipe_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsafe.matrix import recipes

    row = Tables().get("benchmarks", "mt_bench_gpt4_references", "test")
    before = recipes.data_identity(row)
    assert before["task_version"] == 2 and "names" not in before["beside"]["reference_answers"]
    monkeypatch.setattr(recipes, "version", lambda module: 3)
    assert recipes.data_identity(row) != before
