"""scale: a million verdicts judged, scored, tabled, drawn and reported; seconds and memory by size.

Three sizes grow by prompts (75, 300 and 1,195 a benchmark), one by models (four of the smallest size). Each step is a
process of its own. Ours is what it takes at a million verdicts, the peer a straight line through the two smaller sizes:
above 1 the cost of a verdict grows. The smaller sizes are measured twice and the least counts, for the line stretches
their noise fivefold. The page stops growing at `report.transcripts`. The runs are made up (tests/bench/scale_run.py)
and deleted when measured. About 20 CPU minutes, so it runs only where it is asked for.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from tests.bench.child import waited

Took = dict[str, float]  # cpu, wall: seconds; memory_mb: peak of the process

SIZES = (75, 300, 1195)  # prompts a benchmark: 62,775, 251,100 and 1,000,215 verdicts
MODELS = 4  # of the smallest size, as many verdicts as the second
TURNS = 2  # of all sizes but the largest
JUDGES = ("keyword", "refusal", "reference")
STEPS = ("score", "tables", "figures", "report")
WRITTEN = {"score": "scores.csv", "report": "report.html"}
PEER = "a straight line through the two smaller sizes"


def run() -> Iterator[dict]:
    found = [measured(prompts, 1, TURNS if prompts < SIZES[-1] else 1) for prompts in SIZES]
    by_models = measured(SIZES[0], MODELS, TURNS)
    print(table([*found, by_models]), flush=True)
    yield row("all", found, by_models)
    yield from (row(step, found, by_models) for step in found[0]["steps"])


def measured(prompts: int, models: int, turns: int) -> dict:
    """What each step took on one run: its verdicts, files in MB, and seconds and memory by step."""
    with tempfile.TemporaryDirectory(prefix="bitsafe_scale") as work:
        folder, ours = Path(work) / "scale", [sys.executable, "-m", "tests.bench.scale"]
        verdicts, _ = waited([*ours, "make", work, str(prompts), str(models)])
        commands = {f"judge {name}": [*ours, "judge", str(folder), name] for name in JUDGES}
        commands |= {step: [sys.executable, "-m", "bitsafe", step, str(folder)] for step in STEPS}
        steps = {step: least([waited(command)[1] for _ in range(turns)]) for step, command in commands.items()}
        megabytes = {name: (folder / name).stat().st_size / 1e6 for name in WRITTEN.values()}
    steps = {"all": together(list(steps.values())), **steps}
    return {"prompts": prompts, "models": models, "verdicts": int(verdicts), "megabytes": megabytes, "steps": steps}


def least(taken: Sequence[Took]) -> Took:
    """Neighbours on the machine only add."""
    return {name: min(one[name] for one in taken) for name in taken[0]}


def together(taken: Sequence[Took]) -> Took:
    """Steps one after the other: sums of seconds, the largest memory."""
    sums = {name: sum(one[name] for one in taken) for name in ("cpu", "wall")}
    return sums | {"memory_mb": max(one["memory_mb"] for one in taken)}


def row(step: str, found: Sequence[dict], by_models: dict) -> dict:
    """A step at the largest size against the line through the others; `sizes` has every size as it was measured."""
    sizes = [about(one) | one["steps"][step] for one in found]
    line = on_line(sizes[-1]["verdicts"], *((one["verdicts"], one["cpu"]) for one in sizes[:2]))
    last, first = sizes[-1], sizes[0]
    return {
        "name": "scale",
        "experiment": step,
        "verdicts": last["verdicts"],
        "ours": last["cpu"],
        "peer": line,
        "peer_name": PEER,
        "ratio": last["cpu"] / line,
        "unit": "CPU s",
        "n": 1,
        "spread": None,
        "per_verdict_ratio": last["cpu"] / last["verdicts"] / (first["cpu"] / first["verdicts"]),
        "memory_mb": last["memory_mb"],
        "sizes": [*sizes, about(by_models) | by_models["steps"][step]],
    }


def about(one: dict) -> dict:
    return {name: one[name] for name in ("prompts", "models", "verdicts", "megabytes")}


def on_line(x: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    """The value at x of the straight line through two points."""
    return a[1] + (x - a[0]) * (b[1] - a[1]) / (b[0] - a[0])


def table(found: Sequence[dict]) -> str:
    """The seconds and megabytes of every step and size, as docs/performance.md shows them."""
    heads = [f"{one['verdicts']:,}" + (f", {one['models']} models" if one["models"] > 1 else "") for one in found]
    lines = [["CPU s / MB at verdicts", *heads], ["---"] * (len(heads) + 1)]
    for step in found[0]["steps"]:
        taken = [one["steps"][step] for one in found]
        lines.append([step, *(f"{each['cpu']:.1f} / {each['memory_mb']:.0f}" for each in taken)])
    for name in WRITTEN.values():
        lines.append([f"{name}, MB", *(f"{one['megabytes'][name]:.2f}" for one in found)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---- in processes of their own ------------------------------------------------------------------------------------


def make(results: str, prompts: str, models: str) -> None:
    from tests.bench.scale_run import scale_run, verdicts_of

    print(verdicts_of(scale_run(Path(results), int(prompts), int(models))))


def judge(folder: str, name: str) -> None:
    """One judge on every cell: the step `judge` by hand, without a start of Python for each."""
    from bitsafe.matrix.run import Run
    from bitsafe.steps import judge as step

    found = Run.load(Path(folder))
    with redirect_stdout(None):
        for cell in found.cells:
            step.judge(found, cell, name)


if __name__ == "__main__":
    {"make": make, "judge": judge}[sys.argv[1]](*sys.argv[2:])
