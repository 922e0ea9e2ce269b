"""Writing the papers' tables and figures: below a run with its numbers beside the printed ones, or anywhere without."""

from pathlib import Path

from bitsafe.files import write_bytes, write_text
from bitsafe.report.published.build import build
from bitsafe.report.published.formats import as_csv, as_latex, as_markdown, document
from bitsafe.report.published.ours import Ours
from bitsafe.report.published.papers import DOCUMENT, papers
from bitsafe.report.published.view import view

VERSION = 1  # bump when a table or a figure would look different


def write_published(folder: Path) -> None:
    """What is printed alone, without any run."""
    write_tables(folder / "tables")
    write_figures(folder / "figures")
    print(f"{folder}/tables, {folder}/figures: {len(papers())} papers as they are printed")


def write_tables(folder: Path, ours: Ours | None = None) -> None:
    """Write <paper>_<table>.{csv,md,tex} of every paper, and an article that holds them all."""
    stems = []
    for paper in papers():
        for name in paper.says.tables:
            built = build(paper, name, ours)
            shown = view(built)
            stems.append(built.stem)
            write_text(folder / f"{built.stem}.csv", as_csv(built))
            write_text(folder / f"{built.stem}.md", as_markdown(shown))
            write_text(folder / f"{built.stem}.tex", as_latex(shown, built.stem))
    write_text(folder / DOCUMENT, document(stems))


def write_figures(folder: Path, ours: Ours | None = None) -> None:
    """Write <paper>_<figure>.{csv,pdf,png} of every paper."""
    from bitsafe.report.figures import render
    from bitsafe.report.published import points
    from bitsafe.report.published.drawing import draw

    for paper in papers():
        for name, plot in paper.says.figures.items():
            rows = points.points(plot, [build(paper, table, ours) for table in plot.from_])
            stem = f"{paper.slug}_{name}"
            write_text(folder / f"{stem}.csv", points.as_csv(rows))
            figure = draw(plot, rows)
            for kind in ("pdf", "png"):
                write_bytes(folder / f"{stem}.{kind}", render(figure, kind))
