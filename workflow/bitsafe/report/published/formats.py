"""A published table as CSV (for programs), Markdown and LaTeX (for people); none runs what a run's text says."""

import csv
import io
import re

from bitsafe.report.published.build import Built, Cell
from bitsafe.report.published.view import Shown, View, ViewLine
from bitsafe.report.text import in_latex, in_markdown
from bitsafe.stats.csvfile import harmless, shown

BESIDE = ("ours", "low", "high", "difference", "reason")
NUMBER = re.compile(r"-?\d+(\.\d+)?")


def as_csv(built: Built) -> str:
    """The columns text for text as printed; with a run, behind each its ours, low, high, difference and reason."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    beside = BESIDE if built.run else ()
    header = list(built.table.rows)
    for name in built.table.columns:
        header += [name, *(f"{name}_{part}" for part in beside if name in built.columns)]
    table.writerow(map(harmless, header))
    for line in built.lines:
        row = [_inert(label) for label in line.labels.values()]
        for name in built.table.columns:
            if name in line.cells:
                row += [_inert(line.cells[name].printed), *(_numbers(line.cells[name]) if beside else [])]
            else:
                row.append(_inert(line.carried[name]))
        table.writerow(row)
    return text.getvalue()


def _inert(text: str) -> str:
    """A printed number stays as it is, its sign too; any other text is kept from running as a formula."""
    return text if NUMBER.fullmatch(text) else harmless(text)


def _numbers(cell: Cell) -> list[str]:
    ours = cell.ours
    return [shown(value) for value in (ours.value, ours.low, ours.high, cell.difference, ours.reason)]


def as_markdown(view: View) -> str:
    """A heading, a pipe table and its notes."""
    first = [""] * view.labels + ([""] if view.has_kinds else [])
    text = [f"# {in_markdown(view.title)}", "", _row([*first, *map(in_markdown, view.headings)])]
    text.append("|" + "---|" * len(first) + "---:|" * len(view.headings))
    for heading, lines in view.groups:
        if heading:
            text.append(_row([f"**{in_markdown(heading)}**", *[""] * (len(first) + len(view.headings) - 1)]))
        text += [_row(_markdown_cells(view, line)) for line in lines]
    text.append("")
    for mark, note in view.notes:
        text += [f"{f'<sup>{mark}</sup> ' if mark else ''}{in_markdown(note)}", ""]
    return "\n".join(text)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cells(view: View, line: ViewLine) -> list[str]:
    def marked(cell: Shown) -> str:
        return in_markdown(cell.text) + (f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else "")

    kinds = [in_markdown(line.kind)] if view.has_kinds else []
    return [*map(in_markdown, line.labels), *kinds, *map(marked, line.cells)]


HEAD = (
    r"\begingroup\footnotesize",
    r"\setlength{\tabcolsep}{2.5pt}",
    # wide ones reach into both margins
    r"\setlength{\LTleft}{0pt plus 1fill minus 1fill}\setlength{\LTright}{\LTleft}",
)
WIDE = 6  # columns from which the type is smaller still


def as_latex(view: View, label: str) -> str:
    """A longtable with its notes below, to be \\input into an article that uses booktabs and longtable."""
    before = view.labels + view.has_kinds
    width = before + len(view.headings)
    head = _latex_row([*[""] * before, *map(in_latex, view.headings)])
    text = [*HEAD, r"\scriptsize" if len(view.headings) > WIDE else ""]
    text += [rf"\begin{{longtable}}{{@{{}}{'l' * before}{'r' * len(view.headings)}@{{}}}}"]
    text += [rf"\caption{{{in_latex(view.title)}}}\label{{tab:{label}}}\\"]
    text += [r"\toprule", head, r"\midrule", r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead"]
    text += [r"\bottomrule", r"\endfoot"]
    for place, (heading, lines) in enumerate(view.groups):
        text += [r"\addlinespace"] if place else []
        if heading:
            text.append(rf"\multicolumn{{{width}}}{{@{{}}l}}{{\itshape {in_latex(heading)}}}\\*")
        text += _latex_lines(view, lines)
    text += [r"\end{longtable}", r"\noindent"]
    notes = [f"{_superscript((mark,))}{in_latex(note)}" if mark else in_latex(note) for mark, note in view.notes]
    return "\n".join([line for line in text if line] + [r"\par\noindent ".join(f"{note}\n" for note in notes)]) + END


END = "\\par\\endgroup\n"


def _latex_lines(view: View, lines: tuple[ViewLine, ...]) -> list[str]:
    """The lines of one printed row stay on one page."""
    text = []
    for line, after in zip(lines, [*lines[1:], None]):
        kinds = [in_latex(line.kind)] if view.has_kinds else []
        cells = [in_latex(cell.text) + _superscript(cell.marks) for cell in line.cells]
        row = _latex_row([*map(in_latex, line.labels), *kinds, *cells])
        text.append(row + ("*" if after and not any(after.labels) else ""))
    return text


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _superscript(marks: tuple[str, ...]) -> str:
    return rf"\textsuperscript{{{','.join(marks)}}}" if marks else ""


def document(stems: list[str]) -> str:
    """An article that holds the tables, in their order."""
    inputs = "\n".join(rf"\input{{{stem}.tex}}" for stem in stems)
    return (
        "\\documentclass{article}\n\\usepackage{booktabs,longtable}\n"
        f"\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
