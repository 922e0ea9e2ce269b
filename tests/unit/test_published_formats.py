"""Tables as files: what is in them, and that a hostile run can do nothing in CSV, Markdown or LaTeX."""

import csv
import io
import re

import pytest
from markdown_it import MarkdownIt
from published_run import HARMFUL, nouns, run_of

from bitsafe.report.published.build import build
from bitsafe.report.published.formats import as_csv, as_latex, as_markdown, document
from bitsafe.report.published.ours import Ours
from bitsafe.report.published.papers import papers, table_files
from bitsafe.report.published.view import view
from bitsafe.report.published.write import write_tables
from bitsafe.report.text import in_latex, in_markdown

QRESAFE, OSM = (next(paper for paper in papers() if paper.slug == slug) for slug in ("qresafe", "opensafetymini"))
HOSTILE = [
    '=cmd|"/C calc"!A1',
    "@SUM(A1)",
    "-2+3",
    "<script>alert(1)</script>",
    "![x](http://evil.example/x.png) [y](javascript:alert(1)) <http://evil.example> www.evil.example",
    "\\input{/etc/passwd} \\write18{rm} $x$ % & # _ ^ ~ {",
    "a | b | c \\| d ` e",
    "\x1b[31mred\x1b[0m \u202ekcab\u202c \ud800",
    "line\nbreak\r\n\\\\[5cm] \\end{longtable}",
    "x" * 1_000_000,
]


@pytest.fixture(params=HOSTILE, ids=[text[:12].encode("ascii", "ignore").decode() for text in HOSTILE])
def built(request, tmp_path):
    """Table 7 with one measured cell, and one that failed with a hostile reason in a run with a hostile name."""
    good = (
        nouns("llama-2-7b-chat", "qlora", 8, "benign")
        | HARMFUL
        | {"n": 10, "asr": 0.5, "asr_low": 0.2, "asr_high": 0.8}
    )
    ours = run_of(tmp_path, scores=[good, good | {"bits": 4, "asr": None, "reason": request.param}])
    return build(QRESAFE, "table07", Ours(ours.folder, request.param))


def test_csv_runs_no_formula(built):
    for row in csv.reader(io.StringIO(as_csv(built))):
        for cell in row:
            assert not cell.startswith(("=", "+", "@", "\t", "\r"))
            assert not cell.startswith("-") or re.fullmatch(r"-\d+(\.\d+)?", cell), "a leading sign is a number's alone"


def test_markdown_is_one_table_and_text(built):
    """A Markdown reader finds a heading, a table and paragraphs: no link, picture, code or HTML but our <sup>."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(as_markdown(view(built)))
    kinds = {child.type for token in tokens for child in token.children or []} | {token.type for token in tokens}
    allowed = {"table", "thead", "tbody", "tr", "th", "td", "heading", "paragraph", "strong"}
    assert kinds <= {f"{kind}_{end}" for kind in allowed for end in ("open", "close")} | {
        "inline",
        "text",
        "html_inline",
    }
    html = [child.content for token in tokens for child in token.children or [] if child.type == "html_inline"]
    assert set(html) <= {"<sup>", "</sup>"}
    assert sum(token.type == "table_open" for token in tokens) == 1
    rows = as_markdown(view(built)).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows if row.startswith("|")}) == 1


def test_latex_runs_nothing_and_stays_a_table(built):
    text = as_latex(view(built), built.stem)
    assert text.isascii()
    known = (
        "begingroup endgroup footnotesize scriptsize setlength tabcolsep LTleft LTright begin end caption label "
        "toprule midrule bottomrule endfirsthead endhead endfoot multicolumn itshape textsuperscript noindent par "
        "addlinespace textbackslash textasciicircum textasciitilde textless textgreater textbar ldots char to times tau"
    )
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= set(known.split())
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 1
    bare = re.sub(r"\\.", "", text)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    body = text[text.index(r"\endfoot") : text.index(r"\end{longtable}")]
    lines = [
        line for line in body.splitlines() if line.endswith((r"\\", r"\\*")) and not line.startswith(r"\multicolumn")
    ]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {5}, "two columns of labels and four of numbers"
    assert not re.search(r"\\\\\*?\s*\[", text) and not re.search(r"rule\s*\[", text), (
        "no argument of a line break or rule"
    )


def test_a_megabyte_is_cut(built):
    assert all(len(text) < 30_000 for text in (as_markdown(view(built)), as_latex(view(built), "t")))


def test_ordinary_words_stay_as_they_are():
    assert in_markdown("advbench_held_out: 42.4 (Table 3), −0.7") == "advbench_held_out: 42.4 (Table 3), −0.7"
    assert in_markdown("_a_ http://x 1. b") == "\\_a\\_ http\\://x 1. b" and in_markdown("1. b") == "1\\. b"
    assert in_latex("50 % of τ −1, “x”") == "50 \\% of $\\tau$ $-$1, ``x''"
    assert in_latex("日") == "{[}U+65E5{]}"


def test_what_people_see_of_a_measured_cell(tmp_path):
    good = (
        nouns("llama-2-7b-chat", "qlora", 8, "benign")
        | HARMFUL
        | {"n": 10, "asr": 0.5, "asr_low": 0.2, "asr_high": 0.8}
    )
    shown = as_markdown(view(build(QRESAFE, "table07", run_of(tmp_path, scores=[good]))))
    assert "| QLoRA | paper | 41.7 | 42.3 | 67.3 | 82.0 |" in shown
    assert "|  | ours | 50.0 | –<sup>c</sup> | –<sup>d</sup> | –<sup>e</sup> |" in shown
    assert "|  | 95 % | 20.0 to 80.0 |  |  |  |" in shown and "|  | diff. | +8.3 |  |  |  |" in shown
    assert "<sup>a</sup> blank: not run: no method aqlm" in shown and "<sup>e</sup> blank: not run: no bits 2" in shown
    assert "Ours, 8 bits: advbench_held_out, decoding default, judge keyword." in shown


def test_what_is_neither_printed_nor_measured_is_left_empty(tmp_path):
    """No mark at a cell that the paper does not have; its reason is in the CSV file."""
    built = build(OSM, "table04", run_of(tmp_path))
    line = next(line for line in built.lines if line.labels == {"precision": "int2", "method": "AQLM"})
    cell = line.cells["Qwen2.5-1.5B-Instruct"]
    assert cell.printed == "" and cell.ours.reason.startswith("not run")
    shown = [row for _, rows in view(built).groups for row in rows if row.kind == "ours"][-1].cells[2]
    assert (shown.text, shown.marks) == ("", ())


def test_every_file_is_written_with_and_without_a_run(tmp_path):
    write_tables(tmp_path / "printed")
    write_tables(tmp_path / "run", run_of(tmp_path))
    for folder in ("printed", "run"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == sorted([*table_files(), "papers.tex"])
    text = (tmp_path / "run" / "papers.tex").read_text()
    assert text == document([name[:-4] for name in table_files(["tex"])])
    printed = (tmp_path / "printed" / "qresafe_table03.md").read_text()
    assert "ours" not in printed.split("\n\n")[1] and "| **INT4** |" in printed
