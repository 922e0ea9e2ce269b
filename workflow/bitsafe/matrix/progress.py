"""How far each job of a run is, from the small index files that the steps leave; no heavy package is imported."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bitsafe.cells import Cell
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run


@dataclass(frozen=True)
class Job:
    """One job of the matrix. state: done, redo (made by another recipe), todo, running, interrupted or failed."""

    cell: Cell
    step: str
    state: str
    detail: str = ""
    judge: str | None = None


def jobs(run: Run) -> Iterator[Job]:
    """Every job of the matrix in the order of the flow; a job after one that is not done is not done either."""
    made: dict[Cell, bool] = {}
    for cell in run.cells:
        step = "patch" if cell.is_patched else "quantize"
        upstream = not cell.is_patched or made.get(cell.quantized, True)
        making = _job(run, cell, step, "artefacts.json", upstream, cell)
        made[cell] = making.state == "done"
        answering = _job(run, cell, "generate", "answers.json", made[cell], cell)
        yield making
        yield answering
        if run.config.distance.tokens:
            yield _job(run, cell, "distance", "distance.json", made[cell], cell)
        for judge in run.judges:
            yield _job(run, cell, "judge", f"verdicts.{judge}.json", answering.state == "done", cell, judge)


def _job(run: Run, cell: Cell, step: str, file: str, upstream: bool, *nouns: Cell | str) -> Job:
    index, judge = _read(run.at(cell, file)), str(nouns[-1]) if step == "judge" else None
    if index is None:
        below = {"judge": ["verdicts", str(nouns[-1])], "distance": ["distance"]}.get(step, [])
        return Job(cell, step, *_unfinished(run, cell, " ".join([step, *below[1:]]), below), judge=judge)
    current = upstream and index.get("recipe") == recipe(step, run, *nouns)
    return Job(cell, step, "done" if current else "redo", judge=judge)


def _unfinished(run: Run, cell: Cell, step: str, below: list[str]) -> tuple[str, str]:
    """What the replicates' status files say of a step that has no index yet."""
    folders = [run.replicate_folder(cell, k).joinpath(*below) for k in range(run.replicates(cell.model))]
    said = [_read(folder / "status.json") for folder in folders]
    here = [status for status in said if status and status.get("step") == step]
    for state in ("failed", "running", "interrupted"):
        for status in here:
            if status["state"] == state:
                return state, status.get("reason", "")
    return "todo", ""


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
