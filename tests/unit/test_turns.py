"""Several turns: the second is asked after the model's own first answer, and judged with it in view."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import tiny_model

from bitsafe.data.turns import waves
from bitsafe.files import read_jsonl
from bitsafe.generate import options
from bitsafe.generate.step import GenerateJob, generate_replicate
from bitsafe.judges.step import read_answers


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


ROWS = [
    {"id": "1", "messages": user("Write of the sea.")},
    {"id": "1-2", "messages": user("Shorten it."), "after": "1"},
    {"id": "2", "messages": user("Add up 3 and 4.")},
    {"id": "2-2", "messages": user("Now double it!"), "after": "2"},
    {"id": "2-3", "messages": user("And again."), "after": "2-2"},
]


def job(folder: Path, **changes: object) -> GenerateJob:
    given = {
        "opened": lambda: nullcontext(
            lambda *a, **k: options.answer(tiny_model.model(), tiny_model.tokenizer(), *a, **k)
        ),
        "told": "here",
        "identity": "tiny",
        "folder": folder,
        "benchmarks": {"b": ROWS},
        "decodings": {"d": {"do_sample": True, "temperature": 1.0}},
        "max_new_tokens": 8,
        "batch_size": 3,
        "samples": 2,
    }
    return GenerateJob(**given | changes)


def test_turns_wait_for_what_they_follow() -> None:
    assert waves(ROWS) == [[0, 2], [1, 3], [4]] and waves([]) == []


@pytest.mark.parametrize("decoding", [{}, {"system_prompt": "Be brief."}, {"user_prefix": "Please: "}])
def test_the_second_turn_is_asked_after_the_models_own_answer(
    decoding: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = options.answer

    def spy(model: object, tokenizer: object, conversations: list, *arguments: object, **named: object) -> object:
        asked.append([row["messages"] for row in conversations])
        return real(model, tokenizer, conversations, *arguments, **named)

    monkeypatch.setattr(options, "answer", spy)
    generate_replicate(job(tmp_path, decodings={"d": decoding}, samples=1))
    said = {row["id"]: row["answer"] for row in read_jsonl(tmp_path / "answers/b.d.jsonl")}
    assert list(said) == [row["id"] for row in ROWS] and len(set(said.values())) > 2
    system = [{"role": "system", "content": decoding["system_prompt"]}] if "system_prompt" in decoding else []
    prefix = decoding.get("user_prefix", "")
    assert asked[0] == [user("Write of the sea."), user("Add up 3 and 4.")]
    assert asked[2] == [
        [
            *system,
            *user(f"{prefix}Add up 3 and 4."),
            {"role": "assistant", "content": said["2"]},
            *user(f"{prefix}Now double it!"),
            {"role": "assistant", "content": said["2-2"]},
            *user("And again."),
        ]
    ]


def test_each_sample_goes_on_from_its_own_answer_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    counts = generate_replicate(job(tmp_path))
    assert (counts.found, counts.generated) == (0, 10)
    found = read_jsonl(tmp_path / "answers/b.d.jsonl")
    assert [(row["id"], row["sample"]) for row in found][:4] == [("1", 0), ("1", 1), ("1-2", 0), ("1-2", 1)]
    again = generate_replicate(job(tmp_path, opened=None))
    assert (again.found, again.generated) == (10, 0) and read_jsonl(tmp_path / "answers/b.d.jsonl") == found

    pairs = {
        (row["id"], answer["sample"]): row for row, answer in read_answers(tmp_path / "answers/b.d.jsonl", ROWS, 2)
    }
    answers = {(row["id"], row["sample"]): row["answer"] for row in found}
    for sample in (0, 1):
        first, reply, second = pairs["1-2", sample]["messages"]
        assert reply == {"role": "assistant", "content": answers["1", sample]}
        assert (first["content"], second["content"]) == ("Write of the sea.", "Shorten it.")
    assert answers["1", 0] != answers["1", 1] and len(pairs["2-3", 0]["messages"]) == 5


def test_the_first_turn_is_answered_as_a_row_of_its_own_would_be(tmp_path: Path) -> None:
    alone = [row for row in ROWS if "after" not in row]
    generate_replicate(job(tmp_path, benchmarks={"a": alone}))
    assert generate_replicate(job(tmp_path)).found == 4


def test_a_judge_sees_the_conversation_before_the_turn_it_grades() -> None:
    from bitsafe.data.turns import with_conversations
    from bitsafe.judges.asking.requests import prompt, schema_of
    from bitsafe.judges.asking.rubric import read_rubric
    from bitsafe.judges.asking.settings import Params
    from bitsafe.matrix.tables import ROOT

    rubric = read_rubric(ROOT / "workflow/bitsafe/judges/rubrics/mt_bench.yaml")
    said = [{"sample": 0, "answer": text} for text in ("The sea is wide.", "Wide sea.")]
    (_, _), (row, answer) = with_conversations(zip(ROWS[:2], said))
    shown = prompt(row, {"REPLY": answer["answer"]}, rubric.told(""), 8000, schema_of(rubric, Params(model="m")))
    places = [shown.index(text) for text in ("Write of the sea.", "The sea is wide.", "Shorten it.", "Wide sea.")]
    assert places == sorted(places) and "EARLIER ASSISTANT TURN" in shown
