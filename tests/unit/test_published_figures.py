"""Figures of the papers: every printed point at its place, the run's beside it, and what is drawn as a file."""

import csv
import io

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from published_run import HARMFUL, nouns, run_of

from bitsafe.report.figures import WIDTH, render
from bitsafe.report.published.build import build
from bitsafe.report.published.drawing import draw
from bitsafe.report.published.papers import figure_files, papers
from bitsafe.report.published.points import as_csv, points
from bitsafe.report.published.write import write_published

FIGURES = [(paper, name) for paper in papers() for name in paper.says.figures]
QRESAFE = next(paper for paper in papers() if paper.slug == "qresafe")


def drawn(paper, name, ours=None):
    plot = paper.says.figures[name]
    rows = points(plot, [build(paper, table, ours) for table in plot.from_])
    return plot, rows, draw(plot, rows)


def rings(figure) -> list[float]:
    """Where the rings stand that are filled with nothing: the printed numbers."""
    lines = [line for axes in figure.axes for line in axes.lines if line.get_markerfacecolor() == "none"]
    return sorted(float(x) for line in lines for x in line.get_xdata())


@pytest.mark.parametrize(("paper", "name"), FIGURES, ids=[f"{paper.slug}-{name}" for paper, name in FIGURES])
def test_every_printed_number_is_drawn_and_written_once(paper, name):
    plot, rows, figure = drawn(paper, name)
    source = [row for table in plot.from_ for row in paper.printed(table).rows]
    source = [row for row in source if all(row[key] in values for key, values in plot.where.items())]
    printed = sorted(float(row[column]) for row in source for column in plot.series if row[column])
    assert rings(figure) == printed and len(printed) >= 16
    written = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert sorted(float(row["published"]) for row in written if row["published"]) == printed


@pytest.mark.parametrize(("paper", "name"), FIGURES, ids=[f"{paper.slug}-{name}" for paper, name in FIGURES])
def test_printed_in_grey_every_series_keeps_a_mark_of_its_own(paper, name):
    """A shape tells series apart without any colour; what its colour is as a grey stands out from the paper."""
    plot, _, figure = drawn(paper, name)
    marks = {
        line.get_marker(): line.get_color() for axes in figure.axes for line in axes.lines if len(line.get_xdata())
    }
    shapes = {shape for shape in marks if shape not in ("None", None, "")}
    assert len(shapes) >= len(plot.series)
    for colour in (marks[shape] for shape in shapes):
        grey = np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722))
        assert 1 - grey > 0.3, colour


@pytest.mark.parametrize(("paper", "name"), FIGURES, ids=[f"{paper.slug}-{name}" for paper, name in FIGURES])
def test_a_figure_fits_a_column_and_cuts_no_text(paper, name, tmp_path):
    figure = drawn(paper, name, run_of(tmp_path))[2]
    assert figure.get_size_inches()[0] == WIDTH == 3.3
    FigureCanvasAgg(figure).draw()
    box = figure.bbox
    for text in [
        text for axes in figure.axes for text in [*axes.texts, *axes.get_yticklabels(), axes.title]
    ] + figure.texts:
        found = text.get_window_extent()
        if text.get_text():
            assert found.x0 >= box.x0 - 1 and found.x1 <= box.x1 + 1, text.get_text()
            assert found.y0 >= box.y0 - 1 and found.y1 <= box.y1 + 1, text.get_text()
    assert font_manager.findfont("DejaVu Sans", fallback_to_default=False)


def test_a_measured_point_has_its_interval_and_a_missing_one_its_reason(tmp_path):
    cell = (
        nouns("llama-2-7b-chat", "aqlm", 4, "benign") | HARMFUL | {"n": 10, "asr": 0.4, "asr_low": 0.3, "asr_high": 0.5}
    )
    ours = run_of(tmp_path, scores=[cell, cell | {"bits": 8, "asr": None, "reason": "=cmd|x"}])
    _, rows, figure = drawn(QRESAFE, "figure1", ours)
    spans = [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_linewidth() == 2.6]
    assert spans == [[30, 50]]
    written = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert len(written) == 72 and sum(row["ours"] != "" for row in written) == 1
    first = written[0]
    assert (first["ours"], first["low"], first["high"], first["difference"]) == ("40", "30", "50", "21.5")
    failed = next(row for row in written if row["bit"] == "8-bit")
    assert (failed["ours"], failed["reason"]) == ("", "'=cmd|x")
    assert all(row["reason"] for row in written if not row["ours"])
    assert any("The run has 1 of 72 points" in text.get_text() for text in figure.texts)


def test_footnotes_stand_at_their_points():
    figure = drawn(QRESAFE, "figure1")[2]
    marks = sorted(text.get_text() for axes in figure.axes for text in axes.texts if text.get_text().isdigit())
    assert marks == ["1", "2", "3", "4", "5"]
    below = figure.texts[0].get_text()
    assert "Table 6 has 2.4." in below and "Read by eye" in below


def test_files_of_what_is_printed_alone(tmp_path, capsys):
    write_published(tmp_path)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(figure_files())
    assert (tmp_path / "figures" / "qresafe_figure1.pdf").read_bytes().startswith(b"%PDF")
    assert "2 papers" in capsys.readouterr().out
    one, two = (render(drawn(QRESAFE, "figure3")[2], "png") for _ in range(2))
    assert one == two, "the same bytes every time"
