"""A hostile run: its text is inert in the register's CSV and cards, in the gate's forms and in the terminal."""

import csv
import json
import re
import xml.etree.ElementTree as ET

import pytest
import yaml
from governed_run import copied, index_tables
from markdown_it import MarkdownIt
from report_run import edit

from bitsafe.cells import Cell
from bitsafe.cli import main
from bitsafe.files import read_json, write_json
from bitsafe.matrix.run import Run
from bitsafe.report.text import in_markdown, one_line
from bitsafe.steps.summarise import register

RTN = Cell("toy", "rtn", 4)
HOSTILE = [
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "\\input{/etc/passwd} $\\write18{id}$",
    "\u202egnp.exe",
    "\x1b[2J\x1b]0;owned\x07\x00\x9b31m",
    "![x](http://tracker.example/x.png) [y](javascript:alert(1)) http://a.example www.b.example <b>",
    "| a | b |\n|---|---|\n# heading\n---\n- item",
    "`code` *bold* __bold__ ~~gone~~ &lt; ]]> <!-- ${{7*7}} {{7*7}} {% raw %}",
    "\ud800\ufffe\uffff",
    "A" * 1_000_000,
]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


AT_ONCE = {"formula": HOSTILE[1], "long": HOSTILE[-1], "all": " ".join(HOSTILE[:-1])}


@pytest.fixture(params=AT_ONCE)
def run(request, governed, tmp_path) -> Run:
    """Hostile text wherever a run holds text: reasons, owner, a manifest, a summary of the policy."""
    run, text = copied(governed, tmp_path), AT_ONCE[request.param]
    release = {"owner": text, "review_by": text, "production_decoding": "default"}
    write_json(run.folder / "config.json", run.config.model_dump() | {"release": release})
    for place in ({"method": "rtn", "bits": 4}, {"method": "rtn", "bits": 2}):
        edit(
            run,
            "scores",
            place,
            asr="",
            asr_low="",
            asr_high="",
            reason=text[:100_000].encode(errors="replace").decode(),
        )
    index_tables(run)
    status = {"state": "failed", "step": text, "reason": text}
    write_json(run.replicate_folder(Cell("toy", "rtn", 2), 0) / "status.json", status)
    folder = run.replicate_folder(RTN, 0)
    told = read_json(folder / "manifest.json")
    told["provenance"] |= {"commit": text, "libraries": {text: text}}
    write_json(folder / "manifest.json", told)
    return Run.load(run.folder)


def gated(run: Run, tmp_path) -> int:
    policy = {"judges": ["reference"], "asr": {"max_rate": 0.5}, "over_refusal": {"max_rate": 0.5}}
    policy["summary"] = run.config.release.owner.encode(errors="replace").decode()
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(policy))
    return main(["gate", str(run.folder), "--policy", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "out")])


def test_the_gate(run, tmp_path, capsys):
    code = gated(run, tmp_path)
    said = capsys.readouterr().out
    assert code == 3 and not CONTROL.search(said) and max(map(len, said.splitlines())) < 2000
    root = ET.fromstring((tmp_path / "out/gate.xml").read_bytes())
    assert {element.tag for element in root.iter()} <= {
        *("testsuites", "testsuite", "testcase", "failure", "error", "system-out")
    }
    told = (tmp_path / "out/gate.json").read_bytes()
    assert told.isascii() and not CONTROL.search(told.decode()) and json.loads(told)["exit_code"] == 3
    assert not CONTROL.search((tmp_path / "out/gate.txt").read_text())


@pytest.mark.parametrize("name", ["benchmark", "decoding"])
@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_names_in_a_table_that_no_configuration_would_take(governed, tmp_path, name, text):
    """Somebody else's tables: the gate reads them as they are."""
    run, inert = copied(governed, tmp_path), text.encode(errors="replace").decode()
    edit(run, "scores", {"method": "rtn", "bits": 4}, **{name: inert})
    index_tables(run)
    assert gated(run, tmp_path) in (3, 4)
    ET.fromstring((tmp_path / "out/gate.xml").read_bytes())
    told = (tmp_path / "out/gate.json").read_text()
    assert json.loads(told) and not CONTROL.search(told)
    for form in ("gate.xml", "gate.txt"):
        assert not CONTROL.search((tmp_path / "out" / form).read_text()), form


def test_the_register_and_its_cards(run):
    register(run)
    with (run.folder / "register.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            assert not any(value.startswith(("=", "+", "-", "@", "\t", "\r")) for value in row.values())
            assert not CONTROL.search("".join(row.values()))
    for record in (run.folder / "register").glob("*.json"):
        text = record.read_text()
        assert text.isascii() and not CONTROL.search(text) and json.loads(text)["slug"] == record.stem
    for card in (run.folder / "register").glob("*.md"):
        text = card.read_text()
        _, head, body = text.split("---\n", 2)
        assert yaml.safe_load(head)["model-index" if "model-index" in head else "tags"]
        assert not CONTROL.search(text) and len(text) < 60_000
        assert tags(body) <= KNOWN, card


KNOWN = {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "strong", "code", "blockquote"}


def tags(body: str) -> set[str]:
    """The elements that a Markdown reader which lets HTML, links and images through makes of a card."""
    html = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(["table", "strikethrough"]).render(body)
    return set(re.findall(r"<([a-zA-Z!][a-zA-Z0-9]*)", html))


def test_one_cell_in_the_terminal(run, capsys):
    for cell in (RTN, Cell("toy", "rtn", 2)):
        assert main(["show", str(run.folder), str(cell)]) == 0
        said = capsys.readouterr().out
        assert not CONTROL.search(said) and max(map(len, said.splitlines())) < 3000


def test_two_runs_in_the_terminal(run, governed, capsys):
    assert main(["compare", str(governed.folder), str(run.folder)]) == 0
    assert not CONTROL.search(capsys.readouterr().out)


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_markdown_reads_as_the_text_it_was(text):
    """A paragraph and nothing else, whose text is what the terminal would show."""
    found = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(f"x {in_markdown(text, 500)}")
    assert [token.type for token in found] == ["paragraph_open", "inline", "paragraph_close"]
    inline = found[1].children
    assert {token.type for token in inline} <= {"text", "text_special"}
    assert "".join(token.content for token in inline) == f"x {one_line(text, 500)}"


def test_bytes_that_are_no_text_are_one_line(governed, tmp_path, capsys):
    run = copied(governed, tmp_path)
    (run.folder / "scores.csv").write_bytes(b"\xff\xfe\x00")
    (run.folder / "score.json").unlink()
    assert gated(Run.load(run.folder), tmp_path) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "not readable as CSV" in said
