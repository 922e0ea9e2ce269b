"""A built table as people read it: lines of text with marks, and what the marks say; Markdown and LaTeX dress it."""

from collections.abc import Callable
from dataclasses import dataclass

from bitsafe.report.published.build import Built, Cell, Line
from bitsafe.report.text import NONE, one_line

KINDS = ("paper", "ours", "{confidence} %", "diff.")


@dataclass(frozen=True)
class Shown:
    """One cell: its text, and the marks behind it (1, 2: footnotes; a, b: why a number of ours is missing)."""

    text: str
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ViewLine:
    labels: tuple[str, ...]  # blank from the second line of a printed row on
    kind: str  # whose numbers; blank where the paper's stand alone
    cells: tuple[Shown, ...]


@dataclass(frozen=True)
class View:
    title: str
    headings: tuple[str, ...]  # of the columns with numbers
    groups: tuple[tuple[str, tuple[ViewLine, ...]], ...]  # heading ("" for none) and the lines below it
    has_kinds: bool
    notes: tuple[tuple[str, str], ...]  # mark ("" for the whole table) and text

    @property
    def labels(self) -> int:
        """How many columns of labels there are."""
        return len(self.groups[0][1][0].labels)


def view(built: Built) -> View:
    """The table in the paper's rows and columns; a first label that comes again and again becomes a heading."""
    reasons = _reasons(built)
    first = built.table.rows[0]
    values = [line.labels[first] for line in built.lines]
    grouped = len(built.table.rows) > 1 and len(set(values)) < len(values)
    groups: list[tuple[str, list[ViewLine]]] = []
    for line in built.lines:
        heading = one_line(line.labels[first]) if grouped else ""
        if not groups or groups[-1][0] != heading:
            groups.append((heading, []))
        groups[-1][1].extend(_lines(built, line, tuple(line.labels.values())[grouped:], reasons))
    notes = [(str(place), text) for place, text in enumerate(built.footnotes, 1)]
    notes += [(mark, f"blank: {reason}") for reason, mark in reasons.items()]
    notes += [("", text) for text in (*built.remarks, *built.told)]
    return View(
        f"{built.paper.says.name}, Table {int(built.name.removeprefix('table'))}: {built.table.caption}",
        tuple(_heading(built, name) for name in built.columns),
        tuple((heading, tuple(lines)) for heading, lines in groups),
        built.run is not None,
        tuple((mark, one_line(text, 1000)) for mark, text in notes),
    )


def _heading(built: Built, name: str) -> str:
    unit = built.unit(name)
    return f"{built.columns[name].heading or name}{f', {unit}' if unit else ''}"


def _reasons(built: Built) -> dict[str, str]:
    """A letter for each reason why a number of ours is missing where the paper prints one."""
    cells = [cell for line in built.lines for cell in line.cells.values()]
    found = dict.fromkeys(_reason(cell) for cell in cells if built.run and _is_missing(cell))
    return {reason: _letter(place) for place, reason in enumerate(found)}


def _is_missing(cell: Cell) -> bool:
    return bool(cell.printed) and cell.ours.value is None


def _reason(cell: Cell) -> str:
    return one_line(cell.ours.reason, 200) or "not measured"


def _letter(place: int) -> str:
    """a, b, …, z, aa, ab, …"""
    return (_letter(place // 26 - 1) if place >= 26 else "") + chr(ord("a") + place % 26)


def _lines(built: Built, line: Line, labels: tuple[str, ...], reasons: dict[str, str]) -> list[ViewLine]:
    labels = tuple(one_line(label) for label in labels)
    printed = tuple(Shown(minus(cell.printed) or NONE, tuple(map(str, cell.notes))) for cell in line.cells.values())
    if built.run is None:
        return [ViewLine(labels, "", printed)]
    blank = ("",) * len(labels)
    kinds = [kind.format(confidence=f"{100 * built.confidence:g}") for kind in KINDS]
    shown = [ViewLine(labels, kinds[0], printed), ViewLine(blank, kinds[1], _each(built, line, _ours(reasons)))]
    for kind, text in ((kinds[2], _interval), (kinds[3], _difference)):
        cells = _each(built, line, text)
        if any(cell.text for cell in cells):
            shown.append(ViewLine(blank, kind, cells))
    return shown


def _each(built: Built, line: Line, text: Callable[[Cell, int], Shown]) -> tuple[Shown, ...]:
    return tuple(text(cell, built.digits(name)) for name, cell in line.cells.items())


def _ours(reasons: dict[str, str]) -> Callable[[Cell, int], Shown]:
    def shown(cell: Cell, digits: int) -> Shown:
        if cell.ours.value is not None:
            return Shown(minus(f"{cell.ours.value:.{digits}f}"))
        return Shown(NONE, (reasons[_reason(cell)],)) if _is_missing(cell) else Shown("")

    return shown


def _interval(cell: Cell, digits: int) -> Shown:
    low, high = cell.ours.low, cell.ours.high
    return Shown("" if low is None or high is None else minus(f"{low:.{digits}f} to {high:.{digits}f}"))


def _difference(cell: Cell, digits: int) -> Shown:
    if cell.difference is None:
        return Shown("")
    return Shown(minus(f"{round(cell.difference, digits) + 0.0:+.{digits}f}"))


def minus(number: str) -> str:
    """A number with a true minus sign."""
    return number.replace("-", "−")
