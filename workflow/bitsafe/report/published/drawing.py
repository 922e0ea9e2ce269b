"""The figures of the papers: a ring is what the paper prints, a dot with its interval what the run measured.

Rows are cells, series differ in colour and in shape, and what a reader should know stands below in words: nothing rests
on colour. One layout serves all figures, so the same quantity looks the same in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from matplotlib import rcParams, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath

from bitsafe.report.figures import AFTER, BEFORE, FAINT, INK, PAPER, STYLE, WIDTH
from bitsafe.report.published.definitions import Plot
from bitsafe.report.published.points import Points
from bitsafe.report.published.view import minus
from bitsafe.report.text import one_line

ROW, NOTE, KEY = 0.15, 0.085, 0.15  # inches: of a row of two series, of a line of notes, of a line of the legend
BELOW, RIGHT, TITLE, BARE = 0.36, 0.13, 0.2, 0.06  # inches below, right of and above the axes, with a title and without
GAP, BETWEEN = 0.3, 0.2  # inches: for the numbers at the right, between two axes
NOTE_SIZE, NOTE_LETTERS = 5.2, 88
MARKS = [BEFORE, *AFTER]
RING, DOT = 4.6, 2.6  # points


@dataclass(frozen=True)
class Layout:
    """Where rows and headings stand, counted downwards in rows; the same in every axes of a figure."""

    rows: dict[tuple[str, ...], float]  # labels without `across` -> y
    headings: dict[str, float]
    height: float


def lay_out(plot: Plot, rows: Sequence[Points]) -> Layout:
    places: dict[tuple[str, ...], float] = {}
    headings: dict[str, float] = {}
    y = 0.0
    for row in rows:
        heading = ", ".join(row.labels[name] for name in plot.groups)
        if plot.groups and heading not in headings:
            y += 0.3 if headings else 0.0
            headings[heading] = y
            y += 1.0
        if (key := _key(plot, row)) not in places:
            places[key] = y
            y += 1.0
    return Layout(places, headings, y)


def _key(plot: Plot, row: Points) -> tuple[str, ...]:
    return tuple(row.labels[name] for name in [*plot.groups, *plot.rows])


def draw(plot: Plot, rows: Sequence[Points]) -> Figure:
    """As wide as a column of a two-column paper, as high as it has rows."""
    layout = lay_out(plot, rows)
    across = list(dict.fromkeys(row.labels[plot.across] for row in rows)) if plot.across else [""]
    names = {key: one_line(" ".join(key[len(plot.groups) :]), 40) for key in layout.rows}
    body = ROW * max(1.0, 0.5 * len(plot.series)) * layout.height
    with style.context(str(STYLE)):
        left = 0.12 + max(_width(name) for name in names.values())
        handles, notes = _legend(plot, rows), _notes(plot, rows)
        foot = BELOW + KEY * -(-len(handles) // _keys_a_line(plot)) + NOTE * (len(notes) + 0.5)
        total = (TITLE if plot.across else BARE) + body + foot
        figure = Figure(figsize=(WIDTH, total))
        FigureCanvasAgg(figure)
        room = (WIDTH - left - RIGHT - GAP * plot.gap - BETWEEN * (len(across) - 1)) / len(across)
        for place, value in enumerate(across):
            edge = left + place * (room + BETWEEN)
            axes = figure.add_axes((edge / WIDTH, foot / total, room / WIDTH, body / total))
            drawn = [row for row in rows if not plot.across or row.labels[plot.across] == value]
            _draw_axes(axes, plot, drawn, layout, names if place == 0 else {}, _footnotes(rows))
            axes.set_title(one_line(value, 40))
            if place == 0:
                _draw_headings(axes, layout, -(left - 0.03) / room)
        figure.text(0.01, NOTE * 0.3 / total, "\n".join(notes), size=NOTE_SIZE, va="bottom", linespacing=1.15)
        at = (0.5, NOTE * (len(notes) + 0.5) / total)
        figure.legend(handles=handles, loc="lower center", bbox_to_anchor=at, ncols=_keys_a_line(plot), borderaxespad=0)
    return figure


def _width(label: str) -> float:
    """Inches of a row's label."""
    return TextPath((0, 0), label or " ", size=rcParams["ytick.labelsize"]).get_extents().width / 72


def _keys_a_line(plot: Plot) -> int:
    return 2 if len(plot.series) <= 2 else 3


def _draw_axes(axes: Axes, plot: Plot, rows: Sequence[Points], layout: Layout, names: dict, numbers: dict) -> None:
    axes.set(ylim=(layout.height - 0.4, -0.6), xlabel=plot.axis)
    axes.set_yticks([layout.rows[key] for key in names], list(names.values()))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    if plot.limits:
        axes.set_xlim(*plot.limits)
    else:
        axes.axvline(0, color=INK, lw=0.6, zorder=1)
    for row in rows:
        y = layout.rows[_key(plot, row)]
        if plot.arrow:
            _draw_arrow(axes, plot, row, y)
        for place, name in enumerate(plot.series):
            _draw_point(axes, row, name, y + _shift(place, plot), MARKS[place], numbers)
        if plot.gap:
            _write_gap(axes, plot, row, y)


def _shift(place: int, plot: Plot) -> float:
    """How far the series stand apart, so that none hides another; an arrow joins points on one line."""
    return 0.0 if plot.arrow else (0.34 if len(plot.series) == 2 else 0.15) * (place - (len(plot.series) - 1) / 2)


def _draw_point(axes: Axes, row: Points, name: str, y: float, mark: tuple[str, str], numbers: dict[str, int]) -> None:
    cell, (colour, marker) = row.cells[name], mark
    ours = cell.ours
    if cell.published is not None:
        face = {"mfc": "none", "mew": 0.8}
        axes.plot(cell.published, y, marker, color=colour, ms=RING, zorder=4, clip_on=False, **face)
        if cell.notes:
            text = {"textcoords": "offset points", "size": 4.5, "va": "center", "zorder": 5}
            marks = ",".join(str(numbers[note]) for note in row.notes(name))
            axes.annotate(marks, (cell.published, y), (3.4, 2.2), **text)
    if ours.low is not None and ours.high is not None:
        axes.plot([ours.low, ours.high], [y, y], color=colour, lw=2.6, alpha=0.35, solid_capstyle="butt", clip_on=False)
    if ours.value is not None:
        axes.plot(ours.value, y, marker, color=colour, mew=0, ms=DOT, zorder=5, clip_on=False)


def _draw_arrow(axes: Axes, plot: Plot, row: Points, y: float) -> None:
    """From before to after, as it is printed."""
    start, end = (row.cells[name].published for name in plot.series[:2])
    if start is not None and end is not None:
        arrow = {"arrowstyle": "-|>,head_length=0.22,head_width=0.1", "color": FAINT, "lw": 0.5}
        axes.annotate("", (end, y), (start, y), arrowprops=arrow | {"shrinkA": 2.6, "shrinkB": 2.6}, zorder=2)


def _write_gap(axes: Axes, plot: Plot, row: Points, y: float) -> None:
    first, second = (row.cells[name].published for name in plot.series[:2])
    if first is not None and second is not None:
        where = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center_baseline", "size": 6}
        axes.text(1 + GAP / (axes.get_position().width * WIDTH), y, minus(f"{second - first:+.1f}"), **where)


def _draw_headings(axes: Axes, layout: Layout, left: float) -> None:
    """At the edge of the figure, on paper: the grid pauses behind them."""
    for heading, y in layout.headings.items():
        box = {"color": PAPER, "pad": 0.8}
        where = {"transform": axes.get_yaxis_transform(), "va": "center", "weight": "bold", "zorder": 3, "bbox": box}
        axes.text(left, y, one_line(heading, 60), **where)


def _footnotes(rows: Sequence[Points]) -> dict[str, int]:
    """The footnotes of the points, numbered as they are met, whichever table they come from."""
    texts = dict.fromkeys(text for row in rows for name in row.cells for text in row.notes(name))
    return {text: place for place, text in enumerate(texts, 1)}


def _notes(plot: Plot, rows: Sequence[Points]) -> list[str]:
    """What stands below the figure, line by line: how to read it, its footnotes, and what is said of its tables."""
    tables = {row.built.stem: row.built for row in rows}.values()
    texts = [_counted(rows)] if rows[0].built.run else []
    if plot.gap:
        first, second = (rows[0].built.columns[name].heading for name in plot.series[:2])
        texts.append(f"At the right: {second} less {first}, as printed.")
    texts += [f"{place}  {text}" for text, place in _footnotes(rows).items()]
    texts += [*plot.notes, *dict.fromkeys(told for built in tables for told in built.told)]
    return [line for text in texts for line in wrap(one_line(text, 1000), NOTE_LETTERS)]


def _counted(rows: Sequence[Points]) -> str:
    """How many of the points the run has."""
    cells = [cell for row in rows for cell in row.cells.values()]
    known = sum(cell.ours.value is not None for cell in cells)
    why = "" if known == len(cells) else " Why the others are blank is in the CSV file of this figure."
    return f"The run has {known} of {len(cells)} points.{why}"


def _legend(plot: Plot, rows: Sequence[Points]) -> list[Line2D]:
    def mark(colour: str, shape: str, label: str, **more: object) -> Line2D:
        return Line2D([], [], color=colour, marker=shape, ls="", label=label, **more)

    built = rows[0].built
    keys = [
        mark(colour, shape, one_line(built.columns[name].heading or name, 24), mfc="none", mew=0.8, ms=RING)
        for name, (colour, shape) in zip(plot.series, MARKS)
    ]
    if built.run:
        keys.append(mark(FAINT, "o", "ring: the paper", mfc="none", mew=0.8, ms=RING))
        keys.append(mark(FAINT, "o", f"dot: {one_line(built.run, 24)}", mew=0, ms=DOT))
        keys.append(Line2D([], [], color=FAINT, lw=2.6, alpha=0.5, label=f"{100 * built.confidence:g} % interval"))
    return keys
