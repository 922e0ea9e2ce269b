"""What a run took: wall and processor time of every step from timings/, tokens and dollars of the judges' stores."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsafe.judges.asking.ledger import stored
from bitsafe.report.read import read_csv
from bitsafe.report.text import NONE, one_line

if TYPE_CHECKING:
    from bitsafe.matrix.run import Run

View = dict[str, Any]
STEPS = ("quantize", "patch", "generate", "distance", "judge", "score", "tabulate", "plot", "report")


def cost(run: "Run") -> View:
    """Steps, and the judges that are asked over the network: all as words of a table."""
    steps = step_rows(run.folder / "timings")
    total = {key: sum(row[key] for row in steps) for key in ("jobs", "wall", "cpu")}
    peak = max((row["memory"] for row in steps if row["memory"] is not None), default=None)
    return {
        "steps": [_step_view(row) for row in steps],
        "total": _step_view({"step": "all", "memory": peak, **total}) if steps else None,
        "judges": [row for judge in run.judges if (row := judge_row(run.folder, judge))],
    }


def step_rows(folder: Path) -> list[View]:
    """Of each step: jobs, summed wall and processor seconds, and the largest memory in MB, as Snakemake measured."""
    names = {file.relative_to(folder).parts[0].removesuffix(".tsv") for file in folder.rglob("*.tsv")}
    ordered = sorted(names, key=lambda name: (STEPS.index(name) if name in STEPS else len(STEPS), name))
    return [_step_row(name, _timings(folder, name)) for name in ordered]


def _timings(folder: Path, step: str) -> list[View]:
    files = [folder / f"{step}.tsv", *sorted((folder / step).rglob("*.tsv"))]
    return [row for file in files if file.exists() for row in read_csv(file, delimiter="\t")]


def _step_row(step: str, rows: Iterable[View]) -> View:
    rows = list(rows)
    memory = [number for row in rows if (number := _number(row.get("max_rss"))) is not None]
    wall, cpu = (sum(_number(row.get(key)) or 0.0 for row in rows) for key in ("s", "cpu_time"))
    return {"step": step, "jobs": len(rows), "wall": wall, "cpu": cpu, "memory": max(memory, default=None)}


def _number(value: Any) -> float | None:
    """Snakemake writes NA for a job that was too short to be looked at."""
    return float(value) if isinstance(value, int | float) else None


def _step_view(row: View) -> View:
    return {
        "step": one_line(row["step"]),
        "jobs": f"{row['jobs']:,}",
        "wall": hours(row["wall"]),
        "cpu": hours(row["cpu"]),
        "memory": NONE if row["memory"] is None else f"{row['memory']:,.0f} MB",
    }


def hours(seconds: float) -> str:
    """`3.2 h`, `4.5 min` or `12 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def judge_row(folder: Path, judge: str) -> View | None:
    """Replies, tokens and dollars that the stores of a judge hold; None of one that is not asked over the network."""
    rows = [row for row in stored(folder, judge).values() if "tokens_in" in row]
    if not rows:
        return None
    uncounted = sum(not row.get("counted", True) for row in rows)
    dollars = sum(row.get("dollars") or 0.0 for row in rows)
    return {
        "judge": one_line(judge),
        "replies": f"{len(rows):,}",
        "tokens_in": f"{sum(row['tokens_in'] or 0 for row in rows):,}",
        "tokens_out": f"{sum(row['tokens_out'] or 0 for row in rows):,}",
        "dollars": f"{dollars:,.2f}",
        "uncounted": f"{uncounted:,}" if uncounted else "",
    }
