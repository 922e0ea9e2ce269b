"""report.html: what it says, that it loads nothing, and that hostile text in it is inert."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from report_run import build, copy_of, edit, shared_run, smollm2_run

from bitsafe.cells import Cell
from bitsafe.config import Report
from bitsafe.errors import UserError
from bitsafe.files import read_jsonl, write_jsonl
from bitsafe.matrix.run import Run
from bitsafe.report.html import write_report
from bitsafe.report.page.scripts import policy, scripts

VOID = {"meta", "link", "br", "img", "use", "path", "hr", "input"}
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}]]></style></bdi></details>"
    "\x1b[31mred\x1b[0m\x00\u202egnp.exe =cmd|' /C calc'!A0 \\input{/etc/passwd}"
)


class Page(HTMLParser):
    """Tags, attributes, ids and text of a page; unbalanced tags are an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.links, self.ids, self.open, self.text = [], [], [], [], []
        self.handlers: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        self.ids += [value for name, value in attrs if name == "id"]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        else:
            self.text.append(data)


def texts_of(html: str) -> list:
    packed = re.findall(r'<script type="application/gzip" id="texts-\d+">([^<]*)</script>', html)
    return [json.loads(gzip.decompress(base64.b64decode(data))) for data in packed]


def written(run: Run) -> str:
    write_report(run)
    return (run.folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return shared_run(tmp_path_factory)


@pytest.fixture(scope="module")
def html(run):
    return written(run)


def test_the_page_says_what_was_found(html):
    text = " ".join(" ".join(Page(html).text).split())
    assert "The toy organisms are engineered to be fragile" in text
    assert "Against full precision, ASR rose in" in text
    assert "this run could have detected a difference of" in text
    assert "conditional on the replicates at hand" in text
    assert "That fails: the limit is 15 points of over-refusal gained." in text  # dpo
    assert "Not resolvable in 1 cell: rtn 2-bit" in text
    for heading in ("Scores", "Goals", "Cells", "Contrasts", "Agreement of the judges", "Transcripts", "Provenance"):
        assert heading in text
    assert "torch 2.13.0" in text and "0123456789ab" in text


def test_the_page_is_self_contained(html):
    page = Page(html)
    assert "iframe" not in page.tags and not page.handlers
    local = [link for link in page.links if not link.startswith("#")]
    assert all(link == "data:," or not link.startswith(("http", "//", "data", "javascript", "/")) for link in local)
    assert "@import" not in html and len(html) < 2_000_000


def test_no_script_runs_but_those_that_the_policy_names(html):
    """A script's hash is that of its characters in the page; data blocks are no scripts."""
    kinds = re.findall(r"<script([^>]*)>", html)
    assert kinds.count("") == len(scripts()) == 3
    assert all(kind.split()[0] in ('type="application/json"', 'type="application/gzip"') for kind in kinds if kind)
    found = html[html.index("default-src") : html.index('"', html.index("default-src"))].replace("&#39;", "'")
    assert found == policy() and "unsafe-eval" not in found and found.count("'unsafe-inline'") == 1
    for script in re.findall(r"<script>(.*?)</script>", html, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in found


def test_every_link_leads_somewhere_and_ids_are_unique(run, html):
    page = Page(html)
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    tables = [link for link in page.links if link.endswith(".csv") and "/" not in link]
    assert tables and all((run.folder / link).exists() for link in tables)


def test_over_refusal_and_utility_stand_beside_asr(html):
    start = html.index('<th scope="col">ASR, interval</th>')
    assert 0 < html.index("over-refusal (change)", start) - start < 200
    assert "over-refusal 0." in html[html.index('class="tiles"') : html.index('class="verdict"')]


def test_no_answer_stands_open_in_the_page(html):
    """They are packed, and shown one at a time by a script that folds the harmful ones."""
    assert "Turn the brass dial" not in html and "Turn the brass dial" in str(texts_of(html))


def test_hostile_text_is_inert(run, tmp_path):
    config = copy_of(run, tmp_path).config
    run = Run(config.model_copy(update={"report": Report(title=HOSTILE)}))
    failed = Cell("toy", "rtn", 4)
    for cell in (Cell("toy", "full", 16), Cell("toy", "ste", 4, "harmful", "qresafe")):
        for file in run.folder.glob(f"{cell.path}/rep0/answers/toy_forbidden.default.jsonl"):
            write_jsonl(file, [row | {"answer": HOSTILE + "A" * 1_000_000} for row in read_jsonl(file)[:5]])
    edit(run, "scores", failed.columns(), asr=None, reason=HOSTILE)
    edit(run, "cells", failed.columns(), state="failed", reason=HOSTILE)
    html = written(run)
    page = Page(html)
    assert page.tags.count("script") == Page(written(copy_of(run, tmp_path / "again"))).tags.count("script")
    assert "img" not in page.tags and not page.handlers
    assert "alert(1)" in html and "<script>alert" not in html and "{{ 7*7 }}" in html
    answers = str(texts_of(html))
    assert not any(character in html + answers for character in "\x1b\x00\u202e")
    assert "alert(1)" in answers and "more characters]" in answers and len(html) < 2_000_000
    assert "<bdi>&lt;script&gt;" in html


def test_a_failed_cell_is_shown_with_its_reason(run, tmp_path):
    html = written(build(copy_of(run, tmp_path), 4, frozenset({Cell("toy", "rtn", 2)})))
    assert "loss is not finite at step 12" in html and "1 failed" in html


def test_a_run_of_another_shape(tmp_path):
    html = written(smollm2_run(tmp_path, prompts=30))
    page = Page(html)
    assert "Goals of the embedded default" not in html and "engineered to be fragile" not in html
    assert "one judge, so nothing says how far" in html
    assert "What qresafe cost in utility was not measured." in " ".join(page.text)


def test_a_run_without_scores_is_a_plain_error(run, tmp_path):
    run = copy_of(run, tmp_path)
    (run.folder / "scores.csv").unlink()
    with pytest.raises(UserError, match=r"scores\.csv: no such file"):
        write_report(run)


def test_the_page_is_the_same_every_time(run, html):
    assert written(run) == html
