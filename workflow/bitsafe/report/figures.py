"""The figure `asr_by_risk`: ASR by method and risk, before and after each patch.

A row is a cell; a marker its mean over the replicates, the thick bar its interval, small dots and the thin line the
replicates and their range. Every row carries its own label, so neither colour nor legend is needed to read it.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import matplotlib
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from bitsafe.cells import RISKS
from bitsafe.files import write_bytes, write_text
from bitsafe.report.read import Entry, Panel, Results
from bitsafe.report.text import one_line
from bitsafe.report.views import RISK_TITLES, label_of

VERSION = 2  # bump when the figure would look different
STYLE = Path(__file__).with_name("assets") / "bitsafe.mplstyle"
INK, FAINT, BAND, PAPER = "#222222", "#777777", "#ece7d8", "#fffffe"
BEFORE = ("#0072B2", "o")
AFTER = [("#D55E00", "D"), ("#009E73", "s"), ("#CC79A7", "^"), ("#E69F00", "v"), ("#56B4E9", "P")]
UNREADABLE = "x"
ROW, LEGEND_ROW, WIDTH = 0.145, 0.15, 3.3  # inches
LEFT, RIGHT, TOP, BELOW = 1.12, 0.38, 0.05, 0.42  # inches around an axes; labels stand left, values right
COLUMNS = [
    *("model", "benchmark", "decoding", "judge", "method", "bits", "risk", "stage", "n"),
    *("asr", "asr_low", "asr_high", "asr_min", "asr_max", "replicates", "baseline_asr", "mde", "reason"),
]


@dataclass(frozen=True)
class Line:
    """One line of the figure, counted downwards: a heading (no entry) or a cell."""

    y: float
    label: str
    entry: Entry | None = None


def lay_out(panel: Panel) -> list[Line]:
    """Headings by risk, below each its cells in the run's order, a patch right below the cell it repairs."""
    lines: list[Line] = []
    y = 0.0
    for risk in RISKS:
        entries = [entry for entry in panel.entries if entry.cell.risk == risk]
        if not entries:
            continue
        y += 0.5 if lines else 0.0
        lines.append(Line(y, RISK_TITLES[risk]))
        for entry in entries:
            y += 1.0
            lines.append(Line(y, label_of(entry), entry))
        y += 1.0
    return lines


def plotted(panel: Panel) -> list[dict[str, Any]]:
    """What the figure shows, as rows of its CSV file (rates are fractions; replicates joined with a space)."""
    rows = []
    for line in lay_out(panel):
        if line.entry:
            score = {**line.entry.score, "replicates": " ".join(f"{rate:.6g}" for rate in line.entry.replicates)}
            rows.append({column: "" if score.get(column) is None else score[column] for column in COLUMNS})
    return rows


def draw(panels: Sequence[Panel], controls: frozenset[str] = frozenset(), confidence: float = 0.95) -> Figure:
    """One axes a panel, stacked; as wide as a column of a two-column paper, and as high as it has rows."""
    layouts = [lay_out(panel) for panel in panels]
    titles = len(panels) > 1
    heights = [ROW * (lines[-1].y + 1.3) for lines in layouts]
    stages = list(dict.fromkeys(entry.cell.stage for panel in panels for entry in panel.patched))
    marks = {stage: AFTER[place % len(AFTER)] for place, stage in enumerate(stages)}
    with style.context(str(STYLE)):
        handles = _legend(marks, controls, panels, confidence)
        legend = LEGEND_ROW * ((len(handles) + 1) // 2) + 0.08
        top = TOP + ROW * 1.4 * titles
        total = legend + sum(height + top + BELOW for height in heights)
        figure = Figure(figsize=(WIDTH, total))
        FigureCanvasAgg(figure)
        edge = total
        for panel, lines, height in zip(panels, layouts, heights):
            edge -= top + height
            axes = figure.add_axes((LEFT / WIDTH, edge / total, (WIDTH - LEFT - RIGHT) / WIDTH, height / total))
            _draw_panel(axes, panel, lines, marks, controls)
            if titles:
                title = f"{panel.model}, {panel.benchmark}, {panel.decoding}"
                figure.text(
                    0.01, (edge + height + 0.4 * ROW) / total, one_line(title, 70), weight="bold", style="italic"
                )
            edge -= BELOW
        figure.legend(handles=handles, loc="lower left", ncols=2, borderaxespad=0.2)
    return figure


def _draw_panel(axes: Axes, panel: Panel, lines: list[Line], marks: dict, controls: frozenset[str]) -> None:
    axes.set(xlim=(0, 100), ylim=(lines[-1].y + 0.8, -0.5), xlabel="attack success rate (%)")
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.grid(axis="x")
    _draw_reference(axes, panel)
    for line in lines:
        if line.entry is None:
            _heading(axes, line)
        elif line.entry.measured:
            _draw_entry(axes, line, *_mark(line.entry, marks), hollow=line.entry.cell.stage in controls)
        else:
            reason = shorten(f"not measured: {one_line(line.entry.reason)}", 44, placeholder=" …")
            axes.text(1.5, line.y, reason, va="center", color=FAINT, style="italic", size=5.5)
    cells = [line for line in lines if line.entry]
    axes.set_yticks([line.y for line in cells], [line.label for line in cells])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _heading(axes: Axes, line: Line) -> None:
    strip = {"transform": axes.get_yaxis_transform(), "color": PAPER, "lw": 0, "zorder": 1.5, "clip_on": False}
    axes.add_patch(Rectangle((-0.02, line.y - 0.5), 1.04, 1.0, **strip))  # band and grid pause at a heading
    left = -(LEFT - 0.05) / (WIDTH - LEFT - RIGHT)  # at the edge of the figure
    where = {"transform": axes.get_yaxis_transform(), "va": "center", "weight": "bold", "zorder": 3}
    axes.text(left, line.y, line.label, **where)


def _mark(entry: Entry, marks: dict[str, tuple[str, str]]) -> tuple[str, str]:
    if entry.cell.is_patched:
        return marks[entry.cell.stage]
    return (INK, "o") if entry.cell.method == "full" else BEFORE


def _draw_reference(axes: Axes, panel: Panel) -> None:
    """Full precision as a line, and around it the differences that this run is too small to resolve."""
    if panel.baseline is None or not panel.baseline.measured:
        return
    base = 100 * panel.baseline.score["asr"]
    if panel.mde:
        reach = 100 * panel.mde
        axes.axvspan(max(0.0, base - reach), min(100.0, base + reach), color=BAND, lw=0, zorder=0)
    axes.axvline(base, color=INK, lw=0.8, ls=(0, (4, 2)), zorder=1, clip_on=False)


def _draw_entry(axes: Axes, line: Line, colour: str, marker: str, hollow: bool) -> None:
    score, y = line.entry.score, line.y
    asr = 100 * score["asr"]
    if score.get("asr_min") is not None and score.get("asr_max") is not None:
        axes.plot([100 * score["asr_min"], 100 * score["asr_max"]], [y, y], color=colour, lw=0.8, clip_on=False)
    if score.get("asr_low") is not None and score.get("asr_high") is not None:
        bounds = [100 * score["asr_low"], 100 * score["asr_high"]]
        axes.plot(bounds, [y, y], color=colour, lw=3.6, alpha=0.35, solid_capstyle="butt", clip_on=False)
    dots = [100 * rate for rate in line.entry.replicates]
    if len(dots) > 1:
        axes.plot(dots, [y] * len(dots), "|", color=colour, ms=3.6, mew=0.8, clip_on=False)
    face = PAPER if hollow else colour
    marker = UNREADABLE if score.get("resolvable") is False else marker
    axes.plot(asr, y, marker, color=colour, mfc=face, mew=0.8, ms=4.2, clip_on=False, zorder=4)
    if line.entry.before and line.entry.before.measured:
        _draw_arrow(axes, 100 * line.entry.before.score["asr"], asr, y)
    axes.text(1.19, y, f"{asr:.1f}", transform=axes.get_yaxis_transform(), ha="right", va="center_baseline", size=6.5)


def _draw_arrow(axes: Axes, start: float, end: float, y: float) -> None:
    """From where the cell stood before the patch to where it stands after."""
    if abs(start - end) > 4:
        arrow = {
            "arrowstyle": "-|>,head_length=0.25,head_width=0.12",
            "color": FAINT,
            "lw": 0.5,
            "shrinkB": 3,
            "shrinkA": 0,
        }
        axes.annotate("", xy=(end, y), xytext=(start, y), arrowprops=arrow, zorder=2)


def _legend(marks: dict, controls: frozenset[str], panels: Sequence[Panel], confidence: float) -> list[Any]:
    def dot(colour: str, marker: str, label: str, hollow: bool = False) -> Line2D:
        return Line2D([], [], color=colour, marker=marker, ls="", mfc=PAPER if hollow else colour, ms=4.2, label=label)

    handles: list[Any] = [dot(*BEFORE, "before any patch")]
    for stage, (colour, marker) in marks.items():
        control = stage in controls
        label = f"after {one_line(stage, 24)}{' (control)' if control else ''}"
        handles.append(dot(colour, marker, label, control))
    if any(entry.score.get("resolvable") is False for panel in panels for entry in panel.entries):
        handles.append(dot(FAINT, UNREADABLE, "not resolvable"))
    handles.append(Line2D([], [], color=FAINT, lw=3.6, alpha=0.5, label=f"{100 * confidence:.0f} % interval"))
    if any(len(entry.replicates) > 1 for panel in panels for entry in panel.entries):
        handles.append(Line2D([], [], color=FAINT, lw=0.8, marker="|", ms=3.6, label="replicates and their range"))
    handles.append(Line2D([], [], color=INK, lw=0.8, ls=(0, (4, 2)), label="full precision"))
    if any(panel.mde for panel in panels):
        handles.append(Patch(color=BAND, lw=0, label="differences below the mde"))
    return handles


def render(figure: Figure, kind: str) -> bytes:
    """The figure as a file, the same bytes every time (no date in it)."""
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    buffer = io.BytesIO()
    with style.context(str(STYLE)), matplotlib.rc_context({"svg.hashsalt": "bitsafe"}):
        figure.savefig(buffer, format=kind, metadata=metadata, transparent=kind == "svg")
    return buffer.getvalue()


def plotted_csv(panels: Sequence[Panel]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for panel in panels:
        writer.writerows(plotted(panel))
    return text.getvalue()


def write_figures(run: Any) -> None:
    """Write figures/asr_by_risk.{pdf,png,csv}: one axes a model, benchmark and decoding, through its leading judge."""
    results = Results.read(run.folder)
    panels = results.leading
    folder = Path(run.folder) / "figures"
    write_text(folder / "asr_by_risk.csv", plotted_csv(panels))
    figure = draw(panels, frozenset(run.controls), run.config.score.confidence)
    for kind in ("pdf", "png"):
        write_bytes(folder / f"asr_by_risk.{kind}", render(figure, kind))
