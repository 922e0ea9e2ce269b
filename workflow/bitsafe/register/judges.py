"""The judges that judged a cell: by the indexes of their verdicts and what their endpoints said, never by a default."""

import json
from pathlib import Path
from typing import Any

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.files import read_json, sha256_file
from bitsafe.judges.asking.ledger import store_path
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT, version


def judges_of(run: Run, cell: Cell) -> list[dict[str, Any]]:
    """One entry a judge whose verdicts lie here; what today's tables say of it holds only if its recipe is the same."""
    found = []
    for name in run.judges:
        file = run.at(cell, f"verdicts.{name}.json")
        if file.exists():
            found.append(entry_of(run, cell, name, read_json(file), sha256_file(file)))
    return found


def entry_of(run: Run, cell: Cell, name: str, index: dict[str, Any], digest: str) -> dict[str, Any]:
    files = [told for one in index.get("replicates", []) for told in one.get("files", {}).values()]
    told = {"judge": index.get("judge"), "recipe": index.get("recipe"), "index_sha256": digest}
    told |= {"verdicts": sum(int(file.get("rows", 0)) for file in files)}
    if served := models_served(run, cell, name):
        told["models_served"] = served
    if index.get("judge") != name or index.get("recipe") != recipe("judge", run, cell, name):
        return told | {"row": None, "reason": "judged under another row or version than today's tables have"}
    row = run.judge(name)
    reads = sha256_file(ROOT / row.reads) if row.reads else None
    about = {"module": row.module, "version": version(row.module), "family": row.family, "params": row.params}
    return told | {"row": about | {"reads_sha256": reads}}


def models_served(run: Run, cell: Cell, name: str) -> list[str]:
    """The models that an endpoint named in its replies, as the cell's stores keep them."""
    found = set()
    for replicate in range(run.replicates(cell.model)):
        found |= models_in(store_path(run.replicate_folder(cell, replicate), name))
    return sorted(found)


def models_in(store: Path) -> set[str]:
    if not store.exists():
        return set()
    names = set()
    for number, line in enumerate(store.read_bytes().splitlines(), 1):
        try:
            names.add(str(json.loads(line).get("model") or ""))
        except (ValueError, AttributeError):
            raise UserError(f"{store}:{number}: not a reply that was stored: mend or remove that line") from None
    return names - {""}
