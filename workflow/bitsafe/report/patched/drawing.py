"""The figures `ablation_<setting>`: ASR, over-refusal and utility lost against one setting of a patch.

A marker is the mean over the replicates, the thick bar its interval, small ticks the single replicates; the dashed line
is the cell before the patch. What a paper reports for the same setting has an axes of its own: it is another model.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from bitsafe.cells import Cell
from bitsafe.files import write_bytes, write_text
from bitsafe.report.figures import AFTER, FAINT, INK, PAPER, STYLE, WIDTH, render
from bitsafe.report.findings import name_of
from bitsafe.report.patched.sweeps import Sweep, plotted_csv, published_rows, sweep_rows, sweeps
from bitsafe.report.read import Results, Row
from bitsafe.report.text import one_line

if TYPE_CHECKING:
    from bitsafe.matrix.run import Run

VERSION = 2  # bump when a figure would look different
HEIGHT, LEGEND_ROW = 2.9, 0.16  # inches: of one cell's axes, of a line of the legend below them all
SPREAD = 0.16  # how far apart series stand at one value, in steps of the axis
SHARES = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]  # ticks of a setting that is a share of weights, which is drawn to scale
TITLES = {
    "tau": "τ, share of weights that may move",
    "refresh_every": "K, steps from one mask to the next",
    "mask_scope": "share τ taken over",
    "mask_mode": "where the mask lies",
    "quant_mode": "how the patch is written",
    "beta": "β of DPO, 1/nats",
    "prompts": "prompts that pairs are made of",
}
Number = Callable[[Row], float | None]


def write_ablations(run: "Run") -> None:
    """Write figures/ablation_<setting>.{csv,pdf,png}: a group of axes a cell, benchmark and decoding, leading judge."""
    results, found = Results.read(run.folder), sweeps(run)
    folder = Path(run.folder) / "figures"
    for setting in dict.fromkeys(sweep.setting for sweep in found):
        varied = [sweep for sweep in found if sweep.setting == setting]
        groups = [
            rows
            for panel in results.leading
            for cell in dict.fromkeys(sweep.quantized for sweep in varied if sweep.quantized.model == panel.model)
            if (rows := sweep_rows([sweep for sweep in varied if sweep.quantized == cell], panel))
        ]
        published = published_rows(setting, varied)
        write_text(folder / f"ablation_{setting}.csv", plotted_csv(chain(*groups, published)))
        controls = frozenset(sweep.name for sweep in varied if _is_control(run, sweep))
        figure = draw(groups, published, controls, run.config.score.confidence)
        for kind in ("pdf", "png"):
            write_bytes(folder / f"ablation_{setting}.{kind}", render(figure, kind))


def _is_control(run: "Run", sweep: Sweep) -> bool:
    return all(cell.stage in run.controls for _, cell in sweep.points)


def draw(
    groups: Sequence[list[Row]],
    published: Sequence[Row] = (),
    controls: frozenset[str] = frozenset(),
    confidence: float = 0.95,
) -> Figure:
    """One group of axes under the other, each of the rows of one cell under one benchmark and decoding."""
    names = list(dict.fromkeys(row["series"] for rows in groups for row in rows))
    marks = {name: AFTER[place % len(AFTER)] for place, name in enumerate(names)}
    with style.context(str(STYLE)):
        handles = [_handle(*marks[name], _label(name, controls), name in controls) for name in names]
        handles += _explained(confidence)
        heights = [HEIGHT] * len(groups) + [LEGEND_ROW * ((len(handles) + 1) // 2 + 0.5)]
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
        for part, rows in zip(parts[:, 0], groups):
            _draw_group(part, rows, published, marks, controls)
        parts[-1, 0].legend(handles=handles, loc="center", ncols=2)
    return figure


def _draw_group(
    part: SubFigure, rows: list[Row], published: Sequence[Row], marks: dict, controls: frozenset[str]
) -> None:
    above = ["asr", "paper" if published else "asr"]
    axes = part.subplot_mosaic([above, ["over_refusal", "utility"]], height_ratios=[1.5, 1])
    part.suptitle(_title(rows[0]), x=0.01, ha="left", size=7, style="italic", weight="bold")
    part.supxlabel(TITLES.get(rows[0]["setting"], one_line(rows[0]["setting"], 40)), size=7)
    places = _places(rows)
    for key, title, number in (
        ("asr", "ASR (%)", lambda row, name: row.get(f"asr{name}")),
        ("over_refusal", "over-refusal (%)", lambda row, name: row.get(f"over_refusal{name or '_value'}")),
        ("utility", "utility lost (points)", _lost),
    ):
        axes[key].set_title(title)
        for shift, name in zip(_shifts(len(marks)), marks):
            drawn = [row for row in rows if row["series"] == name]
            _draw_series(axes[key], drawn, places, number, shift, *marks[name], name in controls)
        _ticks(axes[key], places, _to_scale(rows))
    for key, before in (("asr", "asr_before"), ("over_refusal", "over_refusal_baseline_value")):
        _draw_before(axes[key], rows, before)
    axes["utility"].axhline(0, color=INK, lw=0.8, ls=(0, (4, 2)), zorder=1)
    axes["asr"].set_ylim(-3, 103)
    axes["over_refusal"].set_ylim(bottom=-1)
    if published:
        _draw_published(axes["paper"], published)


def _title(row: Row) -> str:
    cell = Cell(row["model"], row["method"], row["bits"], row["risk"])
    return one_line(f"{row['model']}, {name_of(cell)}: {row['benchmark']}, {row['decoding']}", 70)


def _places(rows: list[Row]) -> dict[str, float]:
    """Where each value stands: shares of weights to scale, all else evenly, in order."""
    values = list(dict.fromkeys(row["value"] for row in _ordered(rows)))
    return {value: float(value) if _to_scale(rows) else float(place) for place, value in enumerate(values)}


def _to_scale(rows: Sequence[Row]) -> bool:
    return rows[0]["setting"] == "tau"


def _is_number(text: str) -> bool:
    return text == "all" or text.replace(".", "", 1).isdigit()


def _ordered(rows: list[Row]) -> list[Row]:
    """By the longest series, which has the values in order; others may lack some of them."""
    series = [[row for row in rows if row["series"] == name] for name in dict.fromkeys(row["series"] for row in rows)]
    return [row for one in sorted(series, key=len, reverse=True) for row in one]


def _shifts(count: int) -> list[float]:
    return [SPREAD * (place - (count - 1) / 2) for place in range(count)]


def _lost(row: Row, name: str) -> float | None:
    """Utility lost against the cell before the patch; the bounds of a change change places with its sign."""
    change = row.get("utility_" + {"": "delta", "_low": "delta_high", "_high": "delta_low"}[name])
    return None if change is None else -change


def _draw_series(
    axes: Axes, rows: list[Row], places: dict, number: Number, shift: float, colour: str, marker: str, hollow: bool
) -> None:
    step = 0.25 if _to_scale(rows) else 1.0
    drawn = [(places[row["value"]] + shift * step, row) for row in rows if number(row, "") is not None]
    if all(_is_number(value) for value in places):  # between names there is nothing
        axes.plot([x for x, _ in drawn], [100 * number(row, "") for _, row in drawn], color=colour, lw=0.7, zorder=2)
    for x, row in drawn:
        low, high = number(row, "_low"), number(row, "_high")
        if low is not None and high is not None:
            axes.plot([x, x], [100 * low, 100 * high], color=colour, lw=3.2, alpha=0.35, solid_capstyle="butt")
        if number is not _lost and (dots := _replicates(row, number)):
            axes.plot([x] * len(dots), dots, "_", color=colour, ms=4, mew=0.8, zorder=3)
        face = PAPER if hollow else colour
        axes.plot(x, 100 * number(row, ""), marker, color=colour, mfc=face, ms=3.6, mew=0.8, zorder=4, clip_on=False)


def _replicates(row: Row, number: Number) -> list[float]:
    """Single replicates in percent, which scores.csv's splits have for ASR alone."""
    rates = row.get("asr_replicates") or ""
    return [100 * float(rate) for rate in rates.split()] if number(row, "") == row.get("asr") else []


def _ticks(axes: Axes, places: dict[str, float], to_scale: bool) -> None:
    if to_scale:
        axes.set(xlim=(-0.06, 1.06), xticks=SHARES, xticklabels=[f"{share:g}" for share in SHARES])
    else:
        folded = [name.replace("_", "\n") for name in places]  # three words a panel of half the width overlap
        axes.set(xlim=(-0.5, len(places) - 0.5), xticks=list(places.values()), xticklabels=folded)
    axes.tick_params(axis="x", labelsize=5.5 if max(map(len, places)) > 7 else 7)
    axes.grid(axis="y")


def _draw_before(axes: Axes, rows: list[Row], column: str) -> None:
    known = [row[column] for row in rows if row.get(column) is not None]
    if known:
        axes.axhline(100 * known[0], color=INK, lw=0.8, ls=(0, (4, 2)), zorder=1, clip_on=False)


def _draw_published(axes: Axes, published: Sequence[Row]) -> None:
    """The paper's points, which have no interval, as it printed them."""
    points = [(float(row["value"]), 100 * row["asr"]) for row in published]
    axes.plot(*zip(*points), "o-", color=INK, lw=0.7, ms=3.2)
    for point in points:
        axes.annotate(f"{point[1]:g}", point, (0, 4), textcoords="offset points", ha="center", size=5.5)
    axes.set_title("published, ASR (%)")
    axes.set_ylim(-3, 103)
    _ticks(axes, {row["value"]: float(row["value"]) for row in published}, to_scale=True)
    note = {"transform": axes.transAxes, "ha": "right", "va": "top", "size": 5.5, "color": FAINT}
    axes.text(0.98, 0.97, "Llama-2-7B-Chat, 4 bits,\nUltraChat: another model\nand other data", **note)


def _label(name: str, controls: frozenset[str]) -> str:
    return one_line(name, 24) + (" (control)" if name in controls else "")


def _handle(colour: str, marker: str, label: str, hollow: bool) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, lw=0.7, mfc=PAPER if hollow else colour, ms=3.6, label=label)


def _explained(confidence: float) -> list[Line2D]:
    return [
        Line2D([], [], color=FAINT, lw=3.2, alpha=0.5, label=f"{100 * confidence:.0f} % interval, all replicates"),
        Line2D([], [], color=FAINT, lw=0, marker="_", ms=4, label="ASR of single replicates"),
        Line2D([], [], color=INK, lw=0.8, ls=(0, (4, 2)), label="before the patch"),
    ]
