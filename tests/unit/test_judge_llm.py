"""Judge `llm` through its step against a server on loopback: cache, money, keys, and everything that ends it early."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from judge_run import CELL, OTHER, answer, judged, make_run, store
from judge_server import PRICE, serving

from bitsafe.errors import CellError, UserError
from bitsafe.judges.asking.ledger import worst_tokens
from bitsafe.judges.asking.reply import kept
from bitsafe.judges.asking.requests import Request
from bitsafe.judges.asking.settings import Endpoint, Params
from bitsafe.steps.judge import judge

DEAR = {"input": 1000, "output": 1000}  # a completion of the server costs 0.07 dollars


def row(url: str, base: str = "llm_harm", **endpoint: object) -> dict:
    speed = {"concurrency": 2, "timeout": 20, "max_retries": 0, "api_key_env": None}
    return {"base": base, "model": "stub", "endpoint": {"base_url": url, **speed, **endpoint}}


def asked(*behaviours: str) -> list[tuple[str, str]]:
    return [(f"Question {n} behave={name}", f"Answer {n}.") for n, name in enumerate(behaviours)]


def test_the_second_run_sends_nothing_and_says_the_same(tmp_path):
    with serving("strongreject") as server:
        run = make_run(tmp_path, row(server.url, "strongreject"), asked("ok", "refusal", "length", "ok"))
        judge(run, CELL, "ours")
        first, sent = judged(run), Counter(server.attempts)
        judge(run, CELL, "ours")
    assert server.attempts == sent and sum(sent.values()) == 4
    assert judged(run) == first
    assert [found["reason"] for found in first] == [
        "convincing 4, specific 5 of 5",
        "judge_refused",
        "length",
        "convincing 4, specific 5 of 5",
    ]
    assert first[0]["value"] == 7 / 8 and first[0]["refused"] is False and first[1]["verdict"] == "unscored"


def test_what_brought_no_completion_is_asked_again_by_the_next_run(tmp_path):
    with serving("harm") as server:
        run = make_run(tmp_path, row(server.url), asked("e500_once", "html_once", "reset_once", "ok"))
        judge(run, CELL, "ours")
        assert [found["reason"] for found in judged(run)[:3]] == ["http 500", "http 200: no completion", "connection"]
        judge(run, CELL, "ours")
    assert {found["verdict"] for found in judged(run)} == {"harmful"}
    assert set(server.delivered.values()) == {1} and len(server.delivered) == 4


def test_equal_answers_of_two_cells_are_judged_once(tmp_path):
    with serving("harm") as server:
        run = make_run(tmp_path, row(server.url), asked("ok", "ok", "ok"))
        answer(run, OTHER, ["Answer 0.", "Answer 1.", "Another."])
        judge(run, CELL, "ours")
        judge(run, OTHER, "ours")
    assert sum(server.attempts.values()) == 4
    assert len(store(run, CELL)) == 3 and len(store(run, OTHER)) == 1 and len(judged(run, OTHER)) == 3


def test_both_orders_of_a_comparison_are_asked_and_a_liking_for_a_place_is_a_tie(tmp_path):
    with serving("pairwise") as server:
        run = make_run(tmp_path, row(server.url, "alpaca_pairwise"), asked("ok", "ok"), kind="utility")
        answer(run, OTHER, ["Answer 0.", "Another."])
        judge(run, OTHER, "ours")
    same, compared = judged(run, OTHER)
    assert (same["value"], same["reason"]) == (0.5, "the same answer as full precision")
    assert (compared["value"], compared["reason"]) == (0.5, "the order decides")
    texts = [body["messages"][1]["content"] for _, _, body in server.seen]
    assert len(texts) == 2
    firsts = sorted(text.split("=== FIRST REPLY")[1].split("\n")[1] for text in texts)
    assert firsts == ["Another.", "Answer 1."]


def test_the_dollar_limit_stops_before_it_could_be_passed_and_a_higher_one_goes_on(tmp_path):
    answers = asked(*["ok"] * 12)
    with serving("harm") as server:
        judge(make_run(tmp_path / "probe", row(server.url), answers[:1]), CELL, "ours")
        body = server.seen[0][2]
        worst = Endpoint(price=DEAR).dollars(*worst_tokens(Request("", body), Params(model="m", sampling=body)))
        limit = round(worst + 0.3, 6)
        run = make_run(tmp_path, row(server.url, price=DEAR, dollar_limit=limit), answers)
        with pytest.raises(CellError, match=f"dollar_limit {limit:g}:") as caught:
            judge(run, CELL, "ours")
        rows = store(run)
        spent = sum(found["dollars"] for found in rows)
        assert 0 < len(rows) < 12 and spent == pytest.approx(0.07 * len(rows))
        assert spent <= limit < spent + 1.01 * worst  # no room for another at its worst
        assert f"{spent:.4f} dollars spent" in str(caught.value) and f"{len(rows)} replies" in str(caught.value)
        with pytest.raises(CellError):
            judge(run, CELL, "ours")
        assert len(store(run)) == len(rows)
        again = make_run(tmp_path, row(server.url, price=DEAR, dollar_limit=50), answers)
        judge(again, CELL, "ours")
    assert len(judged(again)) == 12 and sorted(server.delivered.values()) == [1] * 11 + [2]  # two: the probe's
    assert sum(found["tokens_in"] for found in store(again)) == 12 * PRICE[0]


def test_the_limit_counts_what_other_cells_of_the_run_have_spent(tmp_path):
    with serving("harm") as server:
        run = make_run(tmp_path, row(server.url, price=DEAR, dollar_limit=5), asked("ok"))
        answer(run, OTHER, ["Another."])
        judge(run, CELL, "ours")
        file = run.replicate_folder(CELL, 0) / "verdicts/ours.store.jsonl"
        dear = json.loads(file.read_text()) | {"dollars": 4.99}
        file.write_text(json.dumps(dear) + "\n")
        with pytest.raises(CellError, match=r"4\.9900 dollars spent"):
            judge(run, OTHER, "ours")
    assert sum(server.attempts.values()) == 1


def test_a_wrong_key_ends_the_cell_at_once_and_a_missing_one_before_anything_is_sent(tmp_path, monkeypatch):
    with serving("harm") as server:
        run = make_run(tmp_path, row(server.url, api_key_env="JUDGE_KEY"), asked(*["unauthorized"] * 20))
        with pytest.raises(UserError, match=r"the variable JUDGE_KEY is not set: set it, or `api_key_env: null`"):
            judge(run, CELL, "ours")
        assert not server.seen
        monkeypatch.setenv("JUDGE_KEY", "sk-sesame")
        with pytest.raises(UserError, match=r"answers 401 \(Incorrect API key\): mend the key") as caught:
            judge(run, CELL, "ours")
        assert "sesame" not in str(caught.value) and len(server.seen) < 6
        assert server.headers[0]["authorization"] == "Bearer sk-sesame"


def test_the_key_is_in_no_file_of_the_run(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("JUDGE_KEY", "sk-sesame")
    with serving("harm") as server:
        run = make_run(tmp_path, row(server.url, api_key_env="JUDGE_KEY", price=DEAR), asked("ok", "e500"))
        judge(run, CELL, "ours")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 5 and not any(b"sesame" in file.read_bytes() for file in files)
    said = "".join(capfd.readouterr())
    assert "sesame" not in said and "1 replies, 50 tokens in, 20 out, 0.0700 dollars" in said


def test_a_dead_endpoint_is_given_up_and_what_it_said_before_is_kept(tmp_path):
    with serving("harm") as server:
        behaviours = ["ok"] * 3 + ["e500"] * 20
        run = make_run(tmp_path, row(server.url, give_up_after=5, concurrency=1), asked(*behaviours))
        with pytest.raises(CellError, match=r"5 requests in a row without a completion \(the last: http 500\)"):
            judge(run, CELL, "ours")
    assert len(server.seen) == 8 and len(store(run)) == 3


def test_a_redirect_is_not_followed(tmp_path):
    with serving("harm") as server:
        server.RequestHandlerClass.on_moved = lambda self, key: self.reply(None, {}, 307, Location="http://[::1]:9/v1")
        run = make_run(tmp_path, row(server.url), asked("moved"))
        judge(run, CELL, "ours")
    assert judged(run)[0]["reason"] == "http 307" and len(server.seen) == 1


@pytest.mark.parametrize("structured", ["json_object", "prompt"])
def test_servers_without_a_schema_get_the_form_in_words(structured, tmp_path):
    with serving("harm") as server:
        run = make_run(
            tmp_path, row(server.url) | {"structured": structured}, asked("ok", "spoken_refusal", "cut_content")
        )
        judge(run, CELL, "ours")
    wanted = {"type": "json_object"} if structured == "json_object" else None
    assert all(body.get("response_format") == wanted for _, _, body in server.seen)
    assert '"score" (1, 2, 3, 4, 5)' in server.seen[0][2]["messages"][1]["content"]
    assert [found["verdict"] for found in judged(run)] == ["harmful", "unscored", "unscored"]
    assert [found["reason"] for found in judged(run)] == ["harm 5 of 5", "judge_refused", "parse"]


def test_a_torn_line_of_the_store_is_cut_and_asked_again(tmp_path):
    with serving("harm") as server:
        run = make_run(tmp_path, row(server.url, concurrency=1), asked("ok", "ok"))
        judge(run, CELL, "ours")
        file = run.replicate_folder(CELL, 0) / "verdicts/ours.store.jsonl"
        file.write_bytes(file.read_bytes()[:-9])
        judge(run, CELL, "ours")
    assert len(store(run)) == 2 and sorted(server.delivered.values()) == [1, 2]


def test_planning_loads_no_client():
    code = (
        "import sys, bitsafe.matrix.plan, bitsafe.hooks, bitsafe.judges.llm, bitsafe.judges.human; print(*sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": "workflow"}
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    ).stdout.split()
    assert "bitsafe.judges.llm" in loaded and not {"openai", "httpx2", "torch", "transformers", "numpy"} & set(loaded)


def test_a_403_about_one_request_is_its_own_and_before_any_reply_it_is_the_keys(tmp_path):
    with serving("harm") as server:
        run = make_run(tmp_path / "a", row(server.url, concurrency=1, max_retries=0), asked("ok", "forbidden", "ok"))
        judge(run, CELL, "ours")
        assert [one["reason"] for one in judged(run)][1] == "http 403"
        run = make_run(tmp_path / "b", row(server.url, concurrency=1, max_retries=0), asked("forbidden", "ok"))
        with pytest.raises(UserError, match="answers 403"):
            judge(run, CELL, "ours")


def test_an_error_that_ends_all_lets_what_is_in_flight_come_to_its_end(tmp_path):
    with serving("harm") as server:
        server.delay = 0.3
        run = make_run(tmp_path, row(server.url, concurrency=4, max_retries=0), asked("ok", "ok", "unauthorized", "ok"))
        with pytest.raises(UserError, match="answers 401"):
            judge(run, CELL, "ours")
    assert len(store(run)) == sum(server.delivered.values()) == 3


@pytest.mark.parametrize("key", ["n", "best_of", "stream"])
def test_a_request_has_one_whole_reply(key, tmp_path):
    run = make_run(tmp_path, row("http://127.0.0.1:1/v1") | {"params": {"sampling": {key: 3}}}, asked("ok"))
    with pytest.raises(UserError, match=rf"params.sampling.{key}: leave it out"):
        judge(run, CELL, "ours")


@pytest.mark.parametrize(
    "usage, tokens, counted",
    [
        ({"prompt_tokens": 5, "completion_tokens": 2}, (5, 2), True),
        ({"prompt_tokens": None, "completion_tokens": 2}, (90, 2), False),
        ({"total_tokens": 500}, (90, 9), False),
        (None, (90, 9), False),
    ],
)
def test_a_bill_that_is_not_whole_is_the_worst_case(usage, tokens, counted):
    body = {"choices": [{"message": {"content": "{}"}}], "usage": usage}
    found = kept(body, Endpoint(price={"input": 1, "output": 1}), (90, 9))
    assert (found["tokens_in"], found["tokens_out"], found["counted"]) == (*tokens, counted)
