"""Engines that ask a server: an endpoint in this process, and `vllm serve` as a program of the test's own."""

import json
import os
import re
import stat
import sys
import threading
from http.server import ThreadingHTTPServer

import pytest
import tiny_model

from bitsafe.errors import UserError
from bitsafe.generate.engines import Served, openai, vllm
from bitsafe.generate.grid import settings_of
from bitsafe.generate.prompts import prompt_ids
from bitsafe.generate.step import each_asked
from bitsafe.matrix.tables import Tables

ROWS = [{"id": str(n), "messages": [{"role": "user", "content": f"Question {n}"}]} for n in range(5)]
NOUNS = {"model": "tiny", "method": "rtn", "bits": 4, "risk": "none", "stage": "quantized", "replicate": 0}
GRID = {"do_sample": True, "temperature": 1.0, "grid": {"temperature": [0.5], "top_k": [7.0]}}

SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def _say(self, code, body):
        self.send_response(code); self.send_header("Content-Type", "application/json"); self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def do_GET(self): self._say(200, {})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] not in MODELS: return self._say(404, {"error": {"message": "no such model"}})
        asked["key"] = self.headers["Authorization"]
        last = asked["messages"][-1]["content"]
        if "fail" in last: return self._say(400, {"error": {"message": "bad words"}})
        text, reason = (None, "content_filter") if "filtered" in last else (json.dumps(asked), "stop")
        choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
        self._say(200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice],
                        "usage": {"completion_tokens": 3, "prompt_tokens": 1, "total_tokens": 4}})
"""


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rep0") / "artefact"
    tiny_model.model().save_pretrained(folder)
    tiny_model.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def endpoint():
    """It answers with what it was asked, as JSON."""
    made = {"MODELS": ["tiny/rtn/4bit/rep0"]}
    exec(SERVER, made)  # the same server that the stand-in for vllm runs
    server = ThreadingHTTPServer(("127.0.0.1", 0), made["Handler"])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def served(artefact, endpoint, **changes):
    params = {"base_url": endpoint, "served": "{model}/{method}/{bits}bit/rep{replicate}", "key": None}
    return Served(artefact, "float32", NOUNS, params | {"beyond": ["top_k"]} | changes)


def asked_of(place, rows, decoding, engine=openai, **more):
    with engine.opened(place) as ask:
        found = sorted(one for batch in ask(rows, decoding, 9, 2, 0, **more) for one in batch)
    return [(one.index, json.loads(one.text)) for one in found]


def test_each_row_is_asked_with_its_own_parameters_and_seed(artefact, endpoint):
    rows = each_asked(ROWS, GRID, 2)
    found = [asked for _, asked in asked_of(served(artefact, endpoint), rows, GRID)]
    assert [asked["messages"] for asked in found] == [row["messages"] for row in rows]
    assert [(a["temperature"], a["top_p"], a.get("top_k")) for a in found[:4]] == [(0.5, 1.0, None)] * 2 + [
        (1.0, 1.0, 7)
    ] * 2
    assert len({asked["seed"] for asked in found}) == len(rows) == 20 and {a["max_tokens"] for a in found} == {9}
    again = [asked for _, asked in asked_of(served(artefact, endpoint), rows, GRID, wanted={3, 4})]
    assert again == found[3:5]


def test_greedy_and_the_system_prompt(artefact, endpoint):
    ((_, asked), *_) = asked_of(served(artefact, endpoint), ROWS, {"system_prompt": "Obey.", "user_prefix": "Do: "})
    assert asked["temperature"] == 0 and "top_p" not in asked
    assert asked["messages"] == [
        {"role": "system", "content": "Obey."},
        {"role": "user", "content": "Do: Question 0"},
    ]


def test_what_an_endpoint_does_not_honour_is_refused(artefact, endpoint):
    with pytest.raises(UserError, match=r"takes no top_k .* and the decoding needs top_k: 7"):
        asked_of(served(artefact, endpoint, beyond=[]), each_asked(ROWS, GRID, 1), GRID)
    with pytest.raises(UserError, match=r"no answer \(NotFoundError: .*no such model.* is it served there"):
        asked_of(served(artefact, endpoint, served="other"), ROWS, {})
    with pytest.raises(UserError, match=r"'colour': known are \{model\}"):
        openai.told(served(artefact, endpoint, served="{colour}"))


def test_the_key_comes_from_the_environment_and_stands_nowhere_else(artefact, endpoint, monkeypatch):
    place = served(artefact, endpoint, key="SOME_KEY")
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(UserError, match="SOME_KEY: not set"):
        asked_of(place, ROWS, {})
    monkeypatch.setenv("SOME_KEY", "secret")
    assert asked_of(place, ROWS[:1], {})[0][1]["key"] == "Bearer secret"
    assert "secret" not in json.dumps(openai.told(place))


def test_what_a_checkpoint_sets_is_sent_or_refused(artefact, endpoint):
    file = artefact / "generation_config.json"
    whole = json.loads(file.read_text())
    try:
        file.write_text(json.dumps(whole | {"do_sample": True, "temperature": 0.6, "top_k": 20}))
        assert asked_of(served(artefact, endpoint), ROWS[:1], {"model_defaults": True})[0][1]["top_k"] == 20
        file.write_text(json.dumps(whole | {"repetition_penalty": 1.2}))
        with pytest.raises(UserError, match="takes no repetition_penalty"):
            asked_of(served(artefact, endpoint), ROWS, {"model_defaults": True})
        file.write_text(json.dumps(whole | {"suppress_tokens": [3]}))
        with pytest.raises(UserError, match=r"suppress_tokens: .* is not supported"):
            asked_of(served(artefact, endpoint), ROWS, {"model_defaults": True})
    finally:
        file.write_text(json.dumps(whole))


@pytest.fixture
def program(tmp_path, monkeypatch):
    """`vllm` on PATH: it says its version, or serves on the port it is given."""
    file = tmp_path / "bin/vllm"
    file.parent.mkdir()
    start = (
        "import os\nif sys.argv[1] == '--version': print('9.9.9'); sys.exit()\n"
        f"open({str(tmp_path / 'seen.json')!r}, 'w').write(json.dumps([os.getpid(), sys.argv[1:]]))\n"
        "if '--broken' in sys.argv: print('no GPU'); sys.exit(3)\n"
        "MODELS = ['bitsafe']\n"
        "ThreadingHTTPServer(('127.0.0.1', int(sys.argv[sys.argv.index('--port') + 1])), Handler).serve_forever()\n"
    )
    file.write_text(f"#!{sys.executable}\n{SERVER}\n{start}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")
    vllm._version.cache_clear()
    return tmp_path / "seen.json"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_vllm_is_started_asked_and_stopped(artefact, program):
    params = Tables().get("engines", "vllm", "test").params
    place = Served(artefact, "float32", NOUNS, params)
    assert vllm.told(place) == ["vllm", "9.9.9", []]
    found = asked_of(place, each_asked(ROWS, GRID, 1), GRID, vllm)
    assert len(found) == 10 and found[1][1]["top_k"] == 7 and found[1][1]["model"] == "bitsafe"
    pid, arguments = json.loads(program.read_text())
    assert not alive(pid) and arguments[:2] == ["serve", str(artefact)]
    assert re.search(r"--dtype float32 --generation-config vllm$", " ".join(arguments))


def test_a_vllm_that_does_not_start_is_told_with_its_last_line(artefact, program):
    place = Served(artefact, "float32", NOUNS, {"command": "vllm", "arguments": ["--broken"], "start_minutes": 1})
    with pytest.raises(UserError, match="vllm ended with 3 before it served; its last line: no GPU"):
        asked_of(place, ROWS, {}, vllm)
    with pytest.raises(UserError, match=r"absent --version: .*names vllm"):
        vllm.told(Served(artefact, "float32", NOUNS, {"command": "absent", "arguments": []}))


def test_a_quantized_artefact_is_exported_dense(artefact, tmp_path):
    from bitsafe.artefacts.load import load_dense
    from bitsafe.quantizers import rtn
    from bitsafe.quantizers.base import QuantizeJob

    out = tmp_path / "rtn"
    out.mkdir()
    rtn.quantize(QuantizeJob(artefact, out, 4, {"group_size": 16}))
    folder = vllm.export_dense(Served(out, "float32"), tmp_path / "export")
    (dense, _), (whole, _) = load_dense(out, "float32"), load_dense(folder, "float32")
    assert all((dense.state_dict()[name] == tensor).all() for name, tensor in whole.state_dict().items())
    (out / "activations.json").write_text('{"inputs": null, "cache": null, "by_layer": {}}')
    with pytest.raises(UserError, match="rounds activations"):
        vllm.export_dense(Served(out, "float32"), tmp_path / "again")


def test_the_rows_of_the_table_name_modules_with_the_interface():
    from importlib import import_module

    for row in Tables().rows("engines").values():
        module = import_module(row.module)
        assert callable(module.told) and callable(module.opened)
    assert settings_of(GRID).keys() == {"temperature_0.5", "top_k_7"}


def test_a_filtered_answer_is_told_apart_from_an_empty_one(artefact, endpoint):
    row = {"messages": [{"role": "user", "content": "filtered"}]}
    with openai.opened(served(artefact, endpoint)) as ask:
        ((one,),) = ask([row], {}, 9, 2, 0)
    assert (one.text, one.finish) == ("", "content_filter")


def test_what_was_answered_beside_a_failed_request_is_not_lost(artefact, endpoint):
    rows = [{"messages": [{"role": "user", "content": text}]} for text in ("one", "fail", "two", "three")]
    with openai.opened(served(artefact, endpoint)) as ask:
        batches = ask(rows, {}, 9, 4, 0)
        assert sorted(one.index for one in next(batches)) == [0, 2, 3]
        with pytest.raises(UserError, match="bad words"):
            next(batches)


def test_a_template_that_writes_the_date_is_put_here_on_one_day_and_by_no_endpoint(artefact, endpoint, monkeypatch):
    tokenizer = tiny_model.tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} " + tokenizer.chat_template
    ids = prompt_ids(tokenizer, ROWS[:1], {})[0]
    assert tokenizer.decode(ids).startswith("26 Jul 2024 ")
    file = artefact / "chat_template.jinja"
    whole = file.read_text()
    try:
        file.write_text(tokenizer.chat_template)
        with pytest.raises(UserError, match="writes today's date"):
            asked_of(served(artefact, endpoint), ROWS, {})
    finally:
        file.write_text(whole)
