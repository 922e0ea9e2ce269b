"""Exact and near duplicates: hand-worked values, and a naive comparison of every pair."""

import csv
import random
from pathlib import Path

import pytest

from bitsafe.config import validate
from bitsafe.data.near_duplicates import CONTAINED, SIMILAR, Text, alike, shingles, texts_of
from bitsafe.data.prompts import prompt_hash
from bitsafe.files import write_jsonl
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run
from bitsafe.steps.near_duplicates import near_duplicates


def text(name: str, words: str) -> Text:
    return Text(name, words)


def test_shingles_are_runs_of_five_characters() -> None:
    assert shingles("abcdef") == {"abcde", "bcdef"} and shingles("abc") == {"abc"} and shingles("aaaaaaa") == {"aaaaa"}


def test_the_values_by_hand() -> None:
    # abcdefgh: 4 shingles; abcdefgx: 4, the first 3 of them shared: 3/5 and 3/4; abcdefghijklmnop holds all 4 of 12
    learned = [text("l", "abcdefgh")]
    found = alike(learned, [text("x", "abcdefgx"), text("long", "abcdefghijklmnop"), text("same", "abcdefgh")])
    values = {pair.asked.row: (pair.kind, pair.similarity, pair.containment) for pair in found}
    assert values == {"same": ("exact", 1, 1), "x": ("near", 0.6, 0.75), "long": ("near", 4 / 12, 1)}
    assert [pair.asked.row for pair in found] == ["same", "x", "long"], "the most alike first"


def test_no_pair_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitsafe.data.near_duplicates.CHUNK", 7)
    draw = random.Random(0)
    words = ["lamp", "bench", "coat", "gate", "song", "stew"]
    texts = [text(str(n), " ".join(draw.choices(words, k=draw.randint(1, 6)))) for n in range(60)]
    learned, asked = texts[:30], texts[30:]
    naive = set()
    for one in learned:
        for other in asked:
            a, b = shingles(one.text), shingles(other.text)
            if len(a & b) / len(a | b) >= SIMILAR or len(a & b) / min(len(a), len(b)) >= CONTAINED:
                naive.add((one.row, other.row))
    assert {(pair.learned.row, pair.asked.row) for pair in alike(learned, asked)} == naive and 10 < len(naive) < 800


def test_every_user_message_counts_and_the_best_pair_of_two_rows_is_kept() -> None:
    turns = ["Please hum a tune.", "Now sing the song of the sea!"]
    row = {"id": "a", "messages": [{"role": "user", "content": turn} for turn in turns]}
    asked = texts_of([{"id": "b", "messages": [{"role": "user", "content": " NOW sing the  song of the sea!"}]}])
    (pair,) = alike(texts_of([row]), asked)
    assert pair.kind == "exact" and pair.asked.key == prompt_hash(row["messages"])
    assert alike([], asked) == []


def test_the_report_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Sets by what they are used for, hashes and no text; an exact pair is reported, not refused."""

    def asks(*prompts: str) -> str:
        rows = [{"id": f"q{k}", "messages": [{"role": "user", "content": text}]} for k, text in enumerate(prompts)]
        return put("asked", rows)

    def put(name: str, rows: list[dict]) -> str:
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
        return str(tmp_path / f"{name}.jsonl")

    turns = [{"role": "user", "content": "How do I bake rye bread?"}, {"role": "assistant", "content": "Slowly."}]
    mine = {
        "licence": "-",
        "risk": "harmful",
        "provenance": "this test",
        "file": put("mine", [{"id": "m", "messages": turns}]),
    }
    benchmark = {
        "licence": "-",
        "kind": "harmful",
        "file": asks("how do I bake rye  bread?", "How do I bake rye breads?"),
    }
    tables = {"datasets": {"mine": mine}, "benchmarks": {"asked": benchmark}}
    tables["patches"] = {"of_mine": {"base": "sft", "params": {"pairs_from": "mine"}}}
    matrix = [{"methods": ["ste"], "bits": [4], "risks": ["benign"], "patches": ["of_mine"]}]
    given = {"run": "x", "results": str(tmp_path / "results"), "matrix": matrix, "benchmarks": ["asked"]}
    run = Run(validate(given | {"tables": tables}))
    near_duplicates(run)
    with (run.folder / "tables/near_duplicates.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["data_set"], row["used_for"], row["row"], row["benchmark_row"], row["kind"]) for row in rows] == [
        ("mine", "patch", "m", "q0", "exact"), ("mine", "patch", "m", "q1", "near"),
    ]  # fmt: skip
    assert rows[0]["sha256"] == rows[0]["benchmark_sha256"] != rows[1]["benchmark_sha256"]
    assert "bread" not in (run.folder / "tables/near_duplicates.csv").read_text()
    said = capsys.readouterr().out
    assert "mine and asked: 1 exact and 1 near pairs of 1 and 2 rows: m ~ q0 (1.00), m ~ q1" in said
    assert "toy_benign and asked: no duplicates" in said
    before = recipe("near_duplicates", run)
    asks("Something else?")
    from bitsafe.matrix import recipes

    recipes._file_identity.cache_clear()
    assert recipe("near_duplicates", Run(run.config)) != before
