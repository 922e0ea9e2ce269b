"""The matrix in the terminal: before a run (`plan`) and during one (`status`)."""

from collections import Counter
from pathlib import Path

from bitsafe.cells import Cell
from bitsafe.config import read_config
from bitsafe.exits import Exit
from bitsafe.matrix.progress import Job, jobs
from bitsafe.matrix.run import Run

STEPS = ("quantize", "patch", "generate", "distance", "judge")
WORST_FIRST = ("failed", "running", "interrupted", "redo", "todo", "done")


def show_plan(configfiles: list[Path], policy: Path | None = None) -> Exit:
    """Print the matrix that these config files describe, and what is done of it; refuse a policy it cannot resolve."""
    run = Run(read_config(configfiles))
    found = list(jobs(run))
    print(heading(run))
    print(matrix(run, found))
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


def cost(run: Run, found: list[Job]) -> str:
    """What the jobs to run will take, by the times recorded for the same steps in this run; else it says so."""
    hours, untimed = 0.0, set()
    for step in STEPS:
        waiting = sum(job.step == step and job.state != "done" for job in found)
        timed = [job.seconds for job in found if job.step == step and job.seconds is not None]
        if waiting and not timed:
            untimed.add(step)
        elif waiting:
            hours += waiting * sum(timed) / len(timed) / 3600
    gpus = max(run.model(name).resources["gpu"] for name in run.config.models)
    unit = "GPU hours" if gpus else "CPU core hours, no GPU"
    known = f"about {hours * max(gpus, 1):.2f} {unit}" if hours or not untimed else f"unknown {unit}"
    missing = f" (no time recorded yet for {', '.join(sorted(untimed))})" if untimed else ""
    return f"To run: {known}{missing}; judge cost: {judge_cost(run)}.\n"


def judge_cost(run: Run) -> str:
    """What the judges that are asked over the network may cost: their limits, where they name some."""
    asked = {name: row.endpoint for name in run.judges if "base_url" in (row := run.judge(name)).endpoint}
    if not asked:
        return "0 dollars (every judge of this run is local)"
    limits = {name: endpoint.get("dollar_limit") for name, endpoint in asked.items()}
    said = [
        f"{name} at most {limit:g} dollars" if limit else f"{name} without a limit" for name, limit in limits.items()
    ]
    return ", ".join(said)


def aligned(lines: list[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines) + "\n"
