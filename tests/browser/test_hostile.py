"""Answers that attack the page which shows them: each is shown as text; none of it runs, loads or leaves its place."""

import json

import pytest
from chromium import opened
from report_run import copy_of, edit

from bitsafe.cells import Cell
from bitsafe.config import Report
from bitsafe.files import read_jsonl
from bitsafe.matrix.run import Run
from bitsafe.report.html import write_report

FULL, STE = Cell("toy", "full", 16), Cell("toy", "ste", 4, "harmful")
ATTACKS = [
    "<script>window.hacked = 1; alert(1)</script>",
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
    "<svg/onload=window.hacked=1><iframe src=javascript:alert(1)></iframe>",
    "=cmd|' /C calc'!A0",
    "\\input{/etc/passwd} \\write18{id}",
    "\u202egnp.exe\u2066 right to left \u200f",
    "\x1b[31mred\x1b[0m\x07\x00 \x9b2J",
    "{{ 7*7 }} {% raw %} ${7*7} <!-- ]]>",
    "A" * 1_000_000,
    "lone surrogate \ud800 and \udfff",
]


@pytest.fixture(scope="module")
def hostile(run, tmp_path_factory):
    """Every attack as an answer, as bytes that are no UTF-8 too, and in the names that a config may choose."""
    run = copy_of(run, tmp_path_factory.mktemp("hostile"))
    for cell in (FULL, STE):
        for file in run.folder.glob(f"{cell.path}/rep*/answers/toy_forbidden.default.jsonl"):
            rows = read_jsonl(file)
            lines = [json.dumps(row | {"answer": attack}).encode() for row, attack in zip(rows, ATTACKS)]
            lines.append(
                json.dumps(rows[len(ATTACKS)] | {"answer": "BYTES"}).encode().replace(b"BYTES", b"\xff\xfe\xc3(")
            )
            lines += [json.dumps(row).encode() for row in rows[len(ATTACKS) + 1 :]]
            file.write_bytes(b"\n".join(lines) + b"\n")
    edit(run, "scores", Cell("toy", "rtn", 4).columns(), asr=None, reason=ATTACKS[1])
    edit(run, "cells", Cell("toy", "rtn", 4).columns(), state="failed", reason=ATTACKS[0])
    run = Run(run.config.model_copy(update={"report": Report(title=ATTACKS[1]), "results": str(run.folder.parent)}))
    write_report(run)
    return run.folder / "report.html"


def test_nothing_of_it_runs(chrome, hostile):
    found = opened(chrome, hostile)
    found.page.select_option("#filter-chain", label="ste 4-bit, risk III")
    found.page.select_option("#filter-benchmark", "toy_forbidden")
    found.page.focus("#transcript-list")
    seen = ""
    for _ in range(len(ATTACKS) + 1):
        found.page.evaluate("for (const one of document.querySelectorAll('#transcript details')) one.open = true")
        seen += found.page.inner_text("#transcript")
        found.page.keyboard.press("ArrowDown")
        found.page.wait_for_timeout(60)
    assert "<script>window.hacked = 1; alert(1)</script>" in seen and "onerror='window.hacked = 1'" in seen
    assert "=cmd|' /C calc'!A0" in seen and "\\input{/etc/passwd}" in seen and "{{ 7*7 }}" in seen
    assert "⟨U+202E⟩gnp.exe" in seen and "␛[31mred" in seen and "more characters]" in seen and "��" in seen
    assert not set(seen) & set("\x1b\x00\x9b\u202e\u2066\u200f")
    assert found.page.evaluate("window.hacked === undefined")
    assert found.page.locator("img, iframe, #transcript svg, #transcript script").count() == 0
    assert found.errors == [] and found.console == [] and found.dialogs == []
    assert found.requests == [hostile.resolve().as_uri()]


def test_it_stays_in_its_place(chrome, hostile):
    found = opened(chrome, hostile)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 1440
    assert found.page.title().startswith("</script><script>window.hacked")
    assert hostile.stat().st_size < 3_000_000
