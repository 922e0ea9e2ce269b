"""register.csv, and for every artefact register/<slug>.json and its model card register/<slug>.md."""

import csv
import io
import json
from typing import Any

from bitsafe.cells import Cell
from bitsafe.files import sha256_json, whole_folder, write_text
from bitsafe.gate.measured import Tables, check_unchanged
from bitsafe.matrix.run import Run
from bitsafe.register.card import card_text
from bitsafe.register.evidence import governed
from bitsafe.register.judges import judges_of
from bitsafe.register.steps import STEPS, Step, steps_of
from bitsafe.report.text import one_line
from bitsafe.stats.csvfile import shown
from bitsafe.stats.states import failure

VERSION = 1
NOUNS = ("model", "method", "bits", "risk", "stage")
COLUMNS = ["run", *NOUNS, "slug", "control", "effective_bits", "steps_done", *STEPS]
COLUMNS += ["artefact_sha256", "record_sha256", "reason"]


def write_register(run: Run) -> None:
    """Write the register whole: what an earlier run left of cells that are gone goes, too."""
    files, notes = check_unchanged(run.folder)
    tables = Tables.read(run.folder)
    rows = []
    with whole_folder(run.folder / "register") as folder:
        for cell in governed(run):
            steps = steps_of(run, tables, cell)
            record = record_of(run, cell, steps, files, notes)
            write_text(folder / f"{cell.slug}.json", json.dumps(record, indent=1) + "\n")  # ASCII: no direction marks
            write_text(folder / f"{cell.slug}.md", card_text(run, cell, steps, record))
            rows.append(row_of(run, cell, steps, record))
            print(f"{cell}: {rows[-1]['steps_done']} of {len(STEPS)} steps done")
    write_text(run.folder / "register.csv", as_csv(rows))


def record_of(run: Run, cell: Cell, steps: list[Step], files: dict[str, str], notes: list[str]) -> dict[str, Any]:
    said = run.config.release
    return {
        "run": run.name,
        "slug": cell.slug,
        **cell.columns(),
        "control": cell.stage in run.controls,
        "failed": failure(run, cell),
        "params": run.params(cell),
        "owner": said.owner,
        "review_by": said.review_by,
        "judges": judges_of(run, cell),
        "tables": files,
        "notes": notes,
        "checklist": [step.as_dict() for step in steps],
    }


def row_of(run: Run, cell: Cell, steps: list[Step], record: dict[str, Any]) -> dict[str, Any]:
    """A row of register.csv; the artefact's hash is of the folders at hand, replicate after replicate."""
    recorded = steps[-1].evidence
    hashes = [link["sha256"] for link in recorded["files"] if link["file"].endswith("/artefact")]
    bits = [one["effective_bits"] for one in recorded["replicates"].values() if one.get("effective_bits") is not None]
    return {
        "run": run.name,
        **cell.columns(),
        "slug": cell.slug,
        "control": record["control"],
        "effective_bits": sum(bits) / len(bits) if bits else None,
        "steps_done": sum(step.done for step in steps),
        **{step.name: "done" if step.done else one_line(f"not done: {step.reason}", 500) for step in steps},
        "artefact_sha256": " ".join(hashes),
        "record_sha256": sha256_json(record),
        "reason": one_line(record["failed"], 500),
    }


def as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([COLUMNS, *([shown(row[column]) for column in COLUMNS] for row in rows)])
    return text.getvalue()
