"""Benchmark rows: one checked shape out of embedded files and of published ones."""

import json
from pathlib import Path
from unittest.mock import ANY

import pytest
from real_data import FOLDER, needs_real_data

from bitsafe.data.prompts import load_benchmark, load_rows, prompt_hash
from bitsafe.errors import UserError
from bitsafe.files import sha256_bytes
from bitsafe.matrix.tables import ROOT, Tables


def said(text: str, system: str | None = None) -> list[dict]:
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": text}]


def csv_row(tmp_path: Path, text: str, **changes: object) -> dict:
    """The table row of a CSV file that lies in DATA_DIR."""
    (tmp_path / "set.csv").write_text(text)
    row = {"name": "b", "url": "https://x.invalid/set.csv", "sha256": sha256_bytes(text.encode()), "format": "csv"}
    return row | {"columns": {"prompt": "goal"}, **changes}


def chat_row(tmp_path: Path, rows: list) -> dict:
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "b", "file": "set.jsonl"}


def test_prompt_hash_levels_case_and_space_and_ignores_the_system_prompt() -> None:
    assert prompt_hash(said("How  do\nI Whistle? ")) == prompt_hash(said("how do i whistle?", "Be brief."))
    assert prompt_hash(said("How do I whistle?")) != prompt_hash(said("How do I whistle"))


def test_prompt_hash_takes_the_last_user_message() -> None:
    turns = [*said("first"), {"role": "assistant", "content": "x"}, *said("second")]
    assert prompt_hash(turns) == prompt_hash(said("second"))


def test_columns_become_rows(tmp_path: Path) -> None:
    text = "goal,topic,n\n Whistle ,fun,a\nSing,fun,b\n"
    columns = {"prompt": "goal", "category": "topic", "id": "n"}
    rows = load_benchmark(csv_row(tmp_path, text, columns=columns), tmp_path, tmp_path)
    assert rows[0] == {"id": "a", "messages": said("Whistle"), "category": "fun", "cluster": "a", "reference": []}
    assert [row["id"] for row in rows] == ["a", "b"]


def test_rows_without_an_id_column_keep_their_number_in_the_file(tmp_path: Path) -> None:
    row = csv_row(tmp_path, "goal,ok\nA,no\nB,yes\nC,yes\n", where={"ok": ["yes"]})
    assert [item["id"] for item in load_benchmark(row, tmp_path, tmp_path)] == ["2", "3"]


def test_a_context_stands_before_its_prompt(tmp_path: Path) -> None:
    row = csv_row(tmp_path, "goal,text\nSum it up,Once\nSum it up,\n", columns={"prompt": "goal", "context": "text"})
    contents = [item["messages"][0]["content"] for item in load_benchmark(row, tmp_path, tmp_path)]
    assert contents == ["Once\n\n---\n\nSum it up", "Sum it up"]


def test_rows_that_share_a_context_are_one_cluster(tmp_path: Path) -> None:
    long, columns = "Once upon a time " * 9, {"prompt": "goal", "context": "text", "cluster": "text"}
    text = f"goal,text\nA,{long}\nB,{long}\nC,other\nD,\n"
    found = load_benchmark(csv_row(tmp_path, text, columns=columns), tmp_path, tmp_path)
    one, two, three, four = [item["cluster"] for item in found]
    assert one == two and len(one) == 12 and (three, four) == ("other", "4")


def test_a_set_of_several_files(tmp_path: Path) -> None:
    parts = {}
    for name, text in {"x": "A\n", "y": "B\nC\n"}.items():
        (tmp_path / f"{name}.csv").write_text(text)
        url = f"https://x.invalid/{name}.csv"
        parts[name] = {"url": url, "sha256": sha256_bytes(text.encode()), "format": "csv_headless"}
    row = {"name": "b", "parts": parts, "columns": {"prompt": "1"}}
    loaded = load_rows(row, tmp_path, tmp_path, None, "b")
    assert loaded.in_file == 3
    assert [(item["id"], item["category"], item["cluster"]) for item in loaded.items] == [
        ("x-1", "x", "x-1"), ("y-1", "y", "y-1"), ("y-2", "y", "y-2"),
    ]  # fmt: skip
    (tmp_path / "y.csv").write_text("changed\n")
    with pytest.raises(UserError, match=r"b\.parts\.y\.sha256: .*y\.csv is not the pinned file"):
        load_rows(row, tmp_path, tmp_path, None, "b")


def test_declared_duplicates_stay_and_share_a_cluster(tmp_path: Path) -> None:
    row = csv_row(tmp_path, "goal\nSing it\nHum\nsing  it\n", duplicates=1)
    loaded = load_rows(row, tmp_path, tmp_path, None, "b")
    assert loaded.duplicates == 1 and [item["cluster"] for item in loaded.items] == ["1", "2", "1"]
    row = csv_row(tmp_path, "goal\nSing it\nHum\nsing  it\nSING IT\n", duplicates=1)
    with pytest.raises(UserError, match=r"row 4: the same prompt as row 1: .*`duplicates`"):
        load_rows(row, tmp_path, tmp_path, None, "b")


def test_a_sample_and_what_it_leaves(tmp_path: Path) -> None:
    text = "goal,target\n" + "".join(f"Question {n},Sure\n" for n in range(60))

    def drawn(**changes: object) -> list[str]:
        return [
            item["id"] for item in load_rows(csv_row(tmp_path, text, **changes), tmp_path, tmp_path, None, "b").items
        ]

    ten, thirty, rest = drawn(sample=10), drawn(sample=30), drawn(leave_out=30)
    assert len(ten) == 10 and set(ten) < set(thirty) and ten == sorted(ten, key=int), "nested, in the order of the file"
    assert sorted(thirty + rest, key=int) == [str(n) for n in range(1, 61)], "the two halves make the file"
    assert ten != [str(n) for n in range(1, 11)]
    answered = {"columns": {"prompt": "goal", "target": "target"}}
    assert drawn(sample=10, **answered) == ten, "answers do not move the draw"
    assert drawn(sample=99) == [str(n) for n in range(1, 61)]


def test_a_column_may_hold_whole_conversations(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text(json.dumps({"key": 7, "chat": said("A")}) + "\n")
    row = {"name": "b", "file": "set.jsonl", "columns": {"messages": "chat", "id": "key"}}
    assert load_benchmark(row, tmp_path)[0]["id"] == "7"
    with pytest.raises(UserError, match="no column 'talk'; it has key, chat"):
        load_benchmark(row | {"columns": {"messages": "talk"}}, tmp_path)


def test_per_category_and_limit(tmp_path: Path) -> None:
    text = "goal,topic\nA,x\nB,x\nC,x\nD,y\nE,y\n"
    row = csv_row(tmp_path, text, columns={"prompt": "goal", "category": "topic"}, per_category=2)
    prompts = [item["messages"][0]["content"] for item in load_benchmark(row, tmp_path, tmp_path)]
    assert prompts == ["A", "B", "D", "E"]
    assert len(load_benchmark(row | {"limit": 3}, tmp_path, tmp_path)) == 3


@pytest.mark.parametrize(
    "text, changes, complaint",
    [
        ("goal\nA\n", {"columns": {"prompt": "Goal"}}, r"b\.columns\.prompt: .*no column 'Goal'; it has goal"),
        ("goal\nA\n", {"where": {"label": ["x"]}}, r"b\.where\.label: .*no column 'label'"),
        ("goal\nA\n", {"columns": {"category": "goal"}}, r"b\.columns\.prompt: missing"),
        ("goal,x\nA,1\n  ,2\n", {}, r"set\.csv: row 2: the prompt \(column 'goal'\) is empty"),
        ("goal\nSing it\nsing  it\n", {}, r"set\.csv: row 2: the same prompt as row 1"),
        ("goal,n\nA,1\nB,1\n", {"columns": {"prompt": "goal", "id": "n"}}, r"row 1: this id stands there twice"),
        ("goal\n", {}, "no column 'goal'"),
        ("goal,x\nA,1\n", {"where": {"x": ["2"]}}, "no rows are left"),
    ],
)
def test_what_a_published_file_can_get_wrong(text: str, changes: dict, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        load_benchmark(csv_row(tmp_path, text, **changes), tmp_path, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row, complaint",
    [
        ({"id": "1"}, r"set\.jsonl:1: no `messages`"),
        ({"id": "1", "messages": ["A"]}, r"set\.jsonl:1: no `messages`"),
        ({"messages": said("A")}, "no `id`"),
        ({"id": "1", "messages": said(" ")}, "row 1: message 1 .user. is empty"),
        ({"id": "1", "messages": [{"role": "user"}]}, "not {role, content}"),
        ({"id": "1", "messages": [*said("A"), *said("B")]}, "roles are user, user"),
        ({"id": "1", "messages": [*said("A"), {"role": "assistant", "content": "B"}]}, "must be the user's"),
        ({"id": "1", "messages": [{"role": "system", "content": "A"}]}, "roles are system"),
    ],
)
def test_what_a_chat_row_can_get_wrong(row: dict, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=complaint):
        load_benchmark(chat_row(tmp_path, [row]), tmp_path)


def test_promised_reference_facts_must_be_there(tmp_path: Path) -> None:
    row = chat_row(tmp_path, [{"id": "1", "messages": said("A")}]) | {"reference": True}
    with pytest.raises(UserError, match="row 1: no `reference` facts"):
        load_benchmark(row, tmp_path)


def test_one_prompt_under_two_system_prompts_is_two_items(tmp_path: Path) -> None:
    rows = [{"id": "1", "messages": said("A", "x")}, {"id": "2", "messages": said("A", "y")}]
    assert len(load_benchmark(chat_row(tmp_path, rows), tmp_path)) == 2


@pytest.mark.parametrize("name, count", [("toy_forbidden", 300), ("toy_borderline", 240), ("toy_benign", 200)])
def test_the_embedded_benchmarks(name: str, count: int) -> None:
    rows = load_benchmark({"name": name, "file": f"data/prompts/{name}.jsonl", "reference": True}, ROOT)
    assert len(rows) == count and all(row["category"] and row["reference"] for row in rows)


PUBLISHED = {
    "advbench": 520,
    "advbench_held_out": 420,
    "harmbench_test": 320,
    "harmbench_test_standard": 159,
    "harmbench_test_contextual": 81,
    "harmbench_test_copyright": 80,
    "harmbench_val": 80,
    "harmbench_val_standard": 41,
    "harmbench_val_contextual": 19,
    "harmbench_val_copyright": 20,
    "jailbreakbench_harmful": 100,
    "strongreject": 313,
    "malicious_instruct": 100,
    "opensafetymini": 1067,
    "xstest_over_refusal": 250,
    "xstest_harmful": 200,
    "mt_bench": 160,
}
CATEGORIES = {"opensafetymini": 8, "mt_bench": 8, "strongreject": 6, "jailbreakbench_harmful": 10}


@needs_real_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_have_their_documented_size(name: str) -> None:
    row = Tables().get("benchmarks", name, "test").model_dump() | {"name": name}
    rows = load_benchmark(row, ROOT, FOLDER)
    assert len(rows) == PUBLISHED[name]
    assert len({item["category"] for item in rows}) == CATEGORIES.get(name, ANY)


@needs_real_data
def test_ten_safe_prompts_of_each_type_of_xstest() -> None:
    digest = sha256_bytes((FOLDER / "xstest_prompts.csv").read_bytes())
    row = {"name": "x", "url": "https://x.invalid/xstest_prompts.csv", "sha256": digest, "format": "csv"}
    row |= {"columns": {"prompt": "prompt", "category": "type"}, "where": {"label": ["safe"]}, "per_category": 10}
    rows = load_benchmark(row, ROOT, FOLDER)
    assert len(rows) == 100 and len({item["category"] for item in rows}) == 10
