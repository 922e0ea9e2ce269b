"""The matrix in the terminal: before a run (`plan`) and during one (`status`)."""

from collections import Counter
from pathlib import Path

from bitsafe.cells import Cell
from bitsafe.config import read_config
from bitsafe.exits import Exit
from bitsafe.matrix.progress import Job, jobs
from bitsafe.matrix.run import Run
from bitsafe.resources.bill import Asked, Hours, asked_over_network, disk_gb, hours, untold
from bitsafe.resources.coefficients import coefficients
from bitsafe.resources.recorded import Calibration, runs_in
from bitsafe.resources.requests import Requests
from bitsafe.resources.work import UNTOLD

STEPS = ("quantize", "patch", "generate", "distance", "judge")
WORST_FIRST = ("failed", "running", "interrupted", "redo", "todo", "done")


def show_plan(configfiles: list[Path], policy: Path | None = None) -> Exit:
    """Print the matrix that these config files describe, and what is done of it; refuse a policy it cannot resolve."""
    run = Run(read_config(configfiles))
    found = list(jobs(run))
    print(heading(run))
    print(matrix(run, found))
    print(part_table(run, found), end="")
    print(job_table(found))
    print(cost(run, found))
    if policy is None:
        return Exit.OK
    from bitsafe.gate.before import check_policy  # scipy

    return check_policy(run, policy)


def show_status(run: Run) -> None:
    """Print how far a run is, and why anything failed."""
    found = list(jobs(run))
    print(heading(run))
    print(matrix(run, found))
    print(job_table(found))
    for job in found:
        if job.state in ("failed", "interrupted"):
            print(f"{job.state}: {job.cell} at {job.step}: {job.detail}")


def heading(run: Run) -> str:
    replicates = ", ".join(f"{name} × {run.replicates(name)}" for name in run.config.models)
    asked = f"{len(run.benchmarks)} benchmarks × {len(run.decodings)} decodings × {len(run.judges)} judges"
    answers = run.config.generate.samples * sum(len(run.settings(name)) or 1 for name in run.decodings)
    a_prompt = f", {answers} answers a prompt" if answers > len(run.decodings) else ""  # a grid, or samples
    return f"{run.folder}: {len(run.cells)} cells ({replicates} replicates), {asked}{a_prompt}\n"


def matrix(run: Run, found: list[Job]) -> str:
    """One row a model, method, risk and stage; one column a bit-width; in it the state of the cell."""
    states: dict[Cell, list[str]] = {}
    for job in found:
        states.setdefault(job.cell, []).append(job.state)
    widths = sorted({cell.bits for cell in run.cells}, reverse=True)
    rows: dict[tuple[str, str, str, str], dict[int, str]] = {}
    for cell in run.cells:
        rows.setdefault((cell.model, cell.method, cell.risk, cell.stage), {})[cell.bits] = summary(states[cell])
    lines = [("model", "method", "risk", "stage", *(f"{bits} bit" for bits in widths))]
    lines += [(*nouns, *(by_bits.get(bits, "") for bits in widths)) for nouns, by_bits in rows.items()]
    return aligned(lines)


def summary(states: list[str]) -> str:
    """The state of a cell from those of its jobs: `3/4` when some are done and none failed or runs."""
    worst = min(states, key=WORST_FIRST.index)
    done = states.count("done")
    return f"{done}/{len(states)}" if worst == "todo" and done else worst


def job_table(found: list[Job]) -> str:
    """Jobs by step: all, done, to run."""
    lines = [("step", "jobs", "done", "to run")]
    for step in STEPS:
        count = Counter(job.state for job in found if job.step == step)
        if total := sum(count.values()):
            lines.append((step, str(total), str(count["done"]), str(total - count["done"])))
    total, done = len(found), sum(job.state == "done" for job in found)
    return aligned([*lines, ("together", str(total), str(done), str(total - done))])


def part_table(run: Run, found: list[Job]) -> str:
    """Cells of each named part of the matrix; a cell of several parts counts in each."""
    if not any(block.part for _, block in run.blocks):
        return ""
    todo = {job.cell for job in found if job.state != "done"}
    lines = [("part", "cells", "to run")]
    for part in dict.fromkeys(block.part or "(none)" for _, block in run.blocks):
        cells = run.cells_of_part(None if part == "(none)" else part)
        lines.append((part, str(len(cells)), str(len(cells & todo))))
    return aligned(lines) + "\n"


def cost(run: Run, found: list[Job]) -> str:
    """What the jobs to run will take, what that rests on, and what was assumed."""
    requests = Requests(run)
    calibration = Calibration(list(runs_in(Path(run.config.results))))
    waiting = [(job.step, job.cell, job.judge) for job in found if job.state != "done"]
    spent = hours(requests, waiting, calibration)
    asked = asked_over_network(run, waiting)
    parts = [
        hour_table(spent),
        disk_line(requests),
        judge_table(asked),
        rests_on(spent, calibration),
        assumed(run, spent),
    ]
    return "\n".join(part for part in parts if part)


def hour_table(spent: dict[str, Hours]) -> str:
    lines = [("to run", "jobs", "GPU hours", "core hours")]
    lines += [(step, str(line.jobs), shown(line.gpu), shown(line.core)) for step, line in spent.items()]
    lines.append(
        (
            "together",
            str(sum(line.jobs for line in spent.values())),
            shown(sum(line.gpu for line in spent.values())),
            shown(sum(line.core for line in spent.values())),
        )
    )
    return aligned(lines)


def shown(value: float) -> str:
    """Two figures are more than an estimate knows."""
    return "0" if not value else f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def disk_line(requests: Requests) -> str:
    parts = disk_gb(requests)
    each = ", ".join(f"{name} {shown(size)}" for name, size in parts.items() if size)
    return f"Disk, once all is done: {shown(sum(parts.values()))} GB ({each}).\n"


def judge_table(asked: dict[str, Asked]) -> str:
    """What judges over the network are asked, and what their limits do to it."""
    if not asked:
        return "Judges: 0 dollars, every judge of this run is local.\n"
    lines = [("judge", "requests", "M tokens in", "M tokens out", "dollars", "limit")]
    for name, line in asked.items():
        dollars = "no price named" if line.dollars is None else f"{line.dollars:,.0f}"
        limit = "-" if line.limit is None else f"{line.limit:,.0f}"
        sums = (f"{line.requests:,.0f}", f"{line.tokens_in / 1e6:,.1f}", f"{line.tokens_out / 1e6:,.1f}")
        lines.append((name, *sums, dollars, limit))
    total = sum(line.dollars or 0 for line in asked.values())
    over = [name for name, line in asked.items() if line.limit and (line.dollars or 0) > line.limit]
    stops = f", and {', '.join(over)} would stop at the limit with cells left unjudged" if over else ""
    return aligned(lines) + f"Judges: about {total:,.0f} dollars without limits{stops}.\n"


def rests_on(spent: dict[str, Hours], calibration: Calibration) -> str:
    """How many of the jobs to run are told from recorded ones."""
    count = sum((line.rests_on for line in spent.values()), Counter())
    own, step = count["method"], count["step"]
    return (
        f"Calibrated: {own + step:,} of {sum(count.values()):,} jobs ({own:,} by jobs of their own method "
        f"and model, {step:,} of their step), from {calibration.recorded:,} recorded in this results folder; the "
        "others as workflow/tables/resources.yaml says.\n"
    )


def assumed(run: Run, spent: dict[str, Hours]) -> str:
    """What the figures take for granted."""
    asks, share = run.config.resources, coefficients().answers.share
    said = [f"answers have {share:.0%} of the tokens they may have"]
    if any(line.gpu for line in spent.values()):
        said.append(
            f"models from {asks.gpu_from / 1e9:g} billion weights on GPUs of {asks.gpu_memory_mb:,} MB, "
            f"{asks.gpu_speed:g} times as fast as an A100, by figures that were not measured on one"
        )
    if missing := untold(run.benchmarks):
        said.append(f"{UNTOLD} prompts each in {', '.join(missing)}, whose rows name no number")
    return f"Assumed: {'; '.join(said)} (docs/resources.md).\n"


def aligned(lines: list[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines) + "\n"
