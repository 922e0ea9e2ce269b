"""judge-batch: submitted once whatever is killed, collected into the stores, and then the judge step sends nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from batch_server import BatchServer
from judge_run import CELL, judged, make_run, store
from judge_server import PRICE

from bitsafe.config import Config
from bitsafe.errors import CellError, UserError
from bitsafe.files import write_json, write_jsonl
from bitsafe.judges.asking import batches
from bitsafe.matrix.run import Run
from bitsafe.steps.judge import judge
from bitsafe.steps.judge_batch import every_file, judge_batch

BEHAVIOURS = ["ok", "ok", "refusal", "e500", "filtered400", "expired", "ok"]
REASONS = ["harm 5 of 5"] * 2 + ["judge_refused", "http 500", "content_filter", "batch batch_expired", "harm 5 of 5"]


@contextmanager
def serving() -> Iterator[BatchServer]:
    server = BatchServer("harm")
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def started(tmp_path, server: BatchServer, mode: str = "batch", **endpoint: object) -> Run:
    price = {"input": 100, "output": 100}
    row = {"base_url": server.url, "api_key_env": None, "max_retries": 0, "price": price, "mode": mode, **endpoint}
    asked = [(f"Question {n} behave={name}", f"Answer {n}.") for n, name in enumerate(BEHAVIOURS)]
    run = make_run(tmp_path, {"base": "llm_harm", "model": "stub", "endpoint": row}, asked)
    write_json(run.at(CELL, "answers.json"), {})
    return run


def test_from_submit_to_verdicts(tmp_path, capsys):
    with serving() as server:
        run = started(tmp_path, server)
        with pytest.raises(
            CellError, match="7 answers are in no finished batch: `python -m bitsafe judge-batch submit"
        ):
            judge(run, CELL, "ours")
        judge_batch(run, "submit", "ours")
        judge_batch(run, "submit", "ours")
        assert len(server.batches) == 1
        judge_batch(run, "collect", "ours")
        assert "in_progress, nothing to collect yet" in capsys.readouterr().out
        judge_batch(run, "poll", "ours")
        judge_batch(run, "collect", "ours")
        assert "5 replies stored, 2 without a completion" in capsys.readouterr().out
        judge_batch(run, "collect", "ours")
        judge(run, CELL, "ours")
    assert [row["reason"] for row in judged(run)] == REASONS
    assert len(server.asked) == len(set(server.asked)) == 7
    paid = [row for row in store(run) if row["tokens_in"]]
    assert len(paid) == 4 and all(row["dollars"] == pytest.approx(sum(PRICE) * 100 / 1e6 / 2) for row in paid)


def test_what_failed_is_submitted_again_and_only_that(tmp_path):
    with serving() as server:
        run = started(tmp_path, server)
        for action in ("submit", "poll", "collect", "submit"):
            judge_batch(run, action, "ours")
        assert len(server.batches) == 2
        for action in ("poll", "collect", "submit", "submit"):  # the same two fail again, under another part's name
            judge_batch(run, action, "ours")
        assert len(server.batches) == 3
        judge_batch(run, "poll", "ours")
        judge_batch(run, "collect", "ours")
    assert len(server.asked) == 7 + 2 + 2


def test_a_submit_that_was_killed_after_the_provider_made_the_batch_makes_no_second(tmp_path):
    with serving() as server:
        run = started(tmp_path, server)
        server.lose_the_reply = True
        with pytest.raises(UserError, match="cannot be reached"):
            judge_batch(run, "submit", "ours")
        server.lose_the_reply = False
        (part,) = batches.parts(run.folder, "ours")
        assert len(server.batches) == 1 and part.batch is None
        judge_batch(run, "submit", "ours")
        assert len(server.batches) == 1 and part.batch["id"] == "batch_0"


def test_large_sets_are_split_and_a_killed_plan_is_completed(tmp_path, monkeypatch):
    monkeypatch.setattr(batches.plan, "__defaults__", (3,))
    with serving() as server:
        run = started(tmp_path, server)
        judge_batch(run, "submit", "ours")
        assert [len(part.owners) for part in batches.parts(run.folder, "ours")].count(3) == 2
        assert len(server.batches) == 3
        part = batches.parts(run.folder, "ours")[0]
        part.file("owners.json").unlink()  # as if killed between the two files of a part
        part.file("batch.json").unlink()
        judge_batch(run, "submit", "ours")
        assert len(server.batches) == 3 and len(batches.parts(run.folder, "ours")) == 3


def test_an_online_judge_waits_for_the_batch_that_asks_the_same(tmp_path):
    with serving() as server:
        run = started(tmp_path, server, mode="online")
        judge_batch(run, "submit", "ours")
        with pytest.raises(CellError, match="a batch that is under way asks the same"):
            judge(run, CELL, "ours")


def test_the_dollar_limit_holds_at_the_batch_price(tmp_path):
    with serving() as server:
        run = started(tmp_path, server, dollar_limit=0.5)
        with pytest.raises(CellError, match=r"dollar_limit 0\.5"):
            judge_batch(run, "submit", "ours")
        assert not server.batches and not server.files
        judge_batch(started(tmp_path, server, dollar_limit=5), "submit", "ours")
        assert len(server.batches) == 1


def test_other_judges_have_no_batches(tmp_path):
    with serving() as server:
        run = started(tmp_path, server)
        with pytest.raises(UserError, match=r"keyword: not a judge of bitsafe\.judges\.llm"):
            judge_batch(run, "submit", "keyword")


def test_the_answers_of_a_grid_are_all_asked(tmp_path):
    grid = {"do_sample": True, "temperature": 1, "top_p": 1, "top_k": 0, "grid": {"temperature": [0.5, 1]}}
    row = {"base": "llm_harm", "model": "stub", "endpoint": {"base_url": "http://127.0.0.1:1/v1", "api_key_env": None}}
    first = make_run(tmp_path, row, [("Question 0", "Answer 0.")])
    asked = first.config.model_dump() | {"decodings": ["little"]}
    run = Run(Config(**asked | {"tables": asked["tables"] | {"decodings": {"little": grid}}}))
    said = {"id": "p0", "sample": 0, "n_tokens": 3, "finish": "stop"}
    rows = [said | {"setting": f"temperature_{t}", "answer": f"At {t}."} for t in ("0.5", "1")]
    write_jsonl(run.replicate_folder(CELL, 0) / "answers/b.little.jsonl", rows)
    write_json(run.at(CELL, "answers.json"), {})
    (found,) = every_file(run, "ours")
    assert [answer["answer"] for _, answer in found.items] == ["At 0.5.", "At 1."]
