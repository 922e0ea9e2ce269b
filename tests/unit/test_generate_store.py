"""Answers survive a kill: none lost, none doubled, and only the missing ones are asked again."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import tiny_model

from bitsafe.errors import UserError
from bitsafe.files import read_jsonl
from bitsafe.generate import engine
from bitsafe.generate.step import STORE, Counts, GenerateJob, generate_replicate, second_arm
from bitsafe.generate.store import AnswerStore
from bitsafe.matrix.tables import ROOT

N = 15  # prompts
ROW = {"answer": "é \n\u2028 x", "n_tokens": 1, "finish": "stop"}


def test_rows_come_back_and_are_kept_once(tmp_path: Path) -> None:
    with AnswerStore(tmp_path / "s") as store:
        assert store.add([("a", ROW), ("b", ROW)]) == 2
        assert store.add([("a", ROW | {"answer": "other"}), ("c", ROW)]) == 1
    with AnswerStore(tmp_path / "s") as store:
        assert len(store) == 3 and store["a"] == ROW and "d" not in store
    assert len((tmp_path / "s").read_bytes().split(b"\n")) == 4


@pytest.mark.parametrize("torn", [b'{"key": "c", "ans', b'{"key": "c", "answer": "\xc3', b"x"])
def test_a_torn_last_line_is_cut_off(torn: bytes, tmp_path: Path) -> None:
    with AnswerStore(tmp_path / "s") as store:
        store.add([("a", ROW)])
    whole = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(whole + torn)
    with AnswerStore(tmp_path / "s") as store:
        assert (tmp_path / "s").read_bytes() == whole
        store.add([("c", ROW)])
    assert [row["key"] for row in read_jsonl(tmp_path / "s")] == ["a", "c"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "s").write_text('{"key": "a"}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(UserError, match=r"s:2: not an answer .*delete that line"):
        AnswerStore(tmp_path / "s")


def job(folder: Path, **changes: object) -> GenerateJob:
    """N prompts under two decodings, in batches of three, by the tiny model."""
    rows = [{"id": f"p{n}", "messages": [{"role": "user", "content": f"Open {n} {'!' * (n % 5)}"}]} for n in range(N)]
    given = {
        "opened": lambda: nullcontext(partial(engine.answer, tiny_model.model(), tiny_model.tokenizer())),
        "told": "here",
        "identity": "tiny",
        "folder": folder,
        "benchmarks": {"b": rows},
        "decodings": DECODINGS["two"],
        "max_new_tokens": 8,
        "batch_size": 3,
    }
    return GenerateJob(**given | changes)


def all_answers(folder: Path) -> dict[str, list[dict]]:
    return {file.name: read_jsonl(file) for file in sorted((folder / "answers").iterdir())}


def counted(counts: Counts) -> tuple[int, int]:
    return counts.found, counts.generated


def test_a_second_job_finds_everything_and_loads_no_model(tmp_path: Path) -> None:
    counts = generate_replicate(job(tmp_path))
    assert counted(counts) == (0, 2 * N)
    assert counts.files == {"answers/b.greedy.jsonl": N, "answers/b.sample.jsonl": N}
    before = all_answers(tmp_path)

    def never() -> None:
        raise AssertionError("loaded")

    assert counted(generate_replicate(job(tmp_path, opened=never))) == (2 * N, 0)
    assert all_answers(tmp_path) == before
    assert before["b.greedy.jsonl"][0].keys() == {"id", "sample", "answer", "n_tokens", "finish"}


def test_a_grid_has_a_row_for_each_setting_and_draws_apart(tmp_path: Path) -> None:
    generate_replicate(job(tmp_path, decodings=DECODINGS["grid"], samples=2))
    found = read_jsonl(tmp_path / "answers/b.sample.jsonl")
    settings = ["temperature_0.2", "temperature_1", "top_p_0.5", "top_k_1"]
    assert [(row["setting"], row["sample"]) for row in found[:8]] == [(name, k) for name in settings for k in (0, 1)]
    greedy = read_jsonl(tmp_path / "answers/b.greedy.jsonl")
    assert [row["answer"] for row in found if row["setting"] == "top_k_1"] == [row["answer"] for row in greedy]
    first, second = (
        [r["answer"] for r in found if (r["setting"], r["sample"]) == ("temperature_1", k)] for k in (0, 1)
    )
    assert sum(a != b for a, b in zip(first, second)) > N // 2


def test_only_what_is_new_is_asked(tmp_path: Path) -> None:
    generate_replicate(job(tmp_path))
    more = {"id": "new", "messages": [{"role": "user", "content": "Something else"}]}
    benchmarks = job(tmp_path).benchmarks | {"c": [more]}
    assert counted(generate_replicate(job(tmp_path, benchmarks=benchmarks))) == (2 * N, 2)
    decodings = job(tmp_path).decodings | {"greedy_aa": second_arm({})}
    assert counted(generate_replicate(job(tmp_path, decodings=decodings))) == (2 * N, N)
    assert counted(generate_replicate(job(tmp_path, samples=2))) == (2 * N, 2 * N)


@pytest.mark.parametrize(
    "change", [{"identity": "other"}, {"told": "elsewhere"}, {"max_new_tokens": 9}, {"seed": 1}, {"batch_size": 4}]
)
def test_what_moves_an_answer_asks_again(change: dict, tmp_path: Path) -> None:
    generate_replicate(job(tmp_path))
    assert counted(generate_replicate(job(tmp_path, **change))) == (0, 2 * N)


def test_a_new_version_of_the_engine_asks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate_replicate(job(tmp_path))
    monkeypatch.setattr(engine, "VERSION", engine.VERSION + 1)
    assert counted(generate_replicate(job(tmp_path))) == (0, 2 * N)


def test_names_and_summaries_do_not(tmp_path: Path) -> None:
    generate_replicate(job(tmp_path))
    renamed = {name: row | {"summary": "other words"} for name, row in job(tmp_path).decodings.items()}
    assert counted(generate_replicate(job(tmp_path, decodings=renamed))) == (2 * N, 0)


SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests/unit")
import test_generate_store as test
from bitsafe.generate import engine, step
quick = engine.generate
def slow(*arguments):
    time.sleep(0.1)
    return quick(*arguments)
engine.generate = slow
step.generate_replicate(test.job(Path(sys.argv[1]), decodings=test.DECODINGS[sys.argv[2]]))
"""
SAMPLED = {"do_sample": True, "temperature": 1.0}
DECODINGS = {
    "two": {"greedy": {}, "sample": SAMPLED},
    "grid": {"greedy": {}, "sample": SAMPLED | {"grid": {"temperature": [0.2, 1.0], "top_p": [0.5], "top_k": [1.0]}}},
}


@pytest.mark.parametrize(("name", "answers"), [("two", 2 * N), ("grid", 5 * N)])
def test_killed_in_the_middle_it_goes_on_as_if_nothing_had_happened(name: str, answers: int, tmp_path: Path) -> None:
    store, fewest = tmp_path / "killed" / STORE, 6 if name == "two" else N + 12  # in the middle of the grid's file
    decodings = DECODINGS[name]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path / "killed"), name], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 600
    while not (store.exists() and store.read_bytes().count(b"\n") >= fewest):
        assert child.poll() is None and time.monotonic() < deadline, "the child ended or hangs"
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    kept = store.read_bytes().count(b"\n")
    assert fewest <= kept < answers and not (tmp_path / "killed" / "answers" / "b.sample.jsonl").exists()
    store.write_bytes(store.read_bytes()[:-5])  # as if the last write had been torn

    again = generate_replicate(job(tmp_path / "killed", decodings=decodings))
    assert counted(again) == (kept - 1, answers - kept + 1)
    generate_replicate(job(tmp_path / "whole", decodings=decodings))
    assert all_answers(tmp_path / "killed") == all_answers(tmp_path / "whole")
    keys = [row["key"] for row in read_jsonl(store)]
    assert len(keys) == len(set(keys)) == answers
