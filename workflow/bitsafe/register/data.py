"""The data that a cell learned from, as it lies here, and what near_duplicates found in it."""

from pathlib import Path
from typing import Any

from bitsafe.data.sources import find, hashes, is_pinned
from bitsafe.files import sha256_file
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT, DatasetRow
from bitsafe.register.evidence import Link
from bitsafe.report.read import read_csv


def set_link(run: Run, row: DatasetRow, used: dict[str, Any]) -> Link:
    """The set's file at hand beside the hash that the manifest has of it. A set of several files: the first missing."""
    if row.file:
        path = ROOT / row.file
        return Link(row.file, sha256_file(path) if path.is_file() else "", str(used.get("content") or ""))
    found = {name: pinned_file(run, file.model_dump()) for name, file in row.files().items()}
    absent = next((name for name, path in found.items() if path is None), None)
    if absent is not None or not found:
        return Link(row.url or str(absent), "", "")
    path = next(path for path in found.values() if path)
    if not row.url:  # several files: `find` gave each only because its bytes are the pinned ones
        return Link(path.name, sha256_file(path), sha256_file(path))
    pins = hashes({"sha256": used.get("sha256")})
    return Link(row.url, sha256_file(path), sha256_file(path) if is_pinned(path, pins) else ", ".join(pins))


def pinned_file(run: Run, file: dict[str, Any]) -> Path | None:
    data_dir = Path(run.config.data_dir) if run.config.data_dir else None
    return find(file, data_dir, Path(run.config.results) / "downloads")


def near_pairs(run: Run, name: str) -> dict[str, int] | None:
    """Pairs of a row of this set and a prompt that is asked, exact and near, by benchmark; None if nobody looked."""
    table = run.folder / "tables" / "near_duplicates.csv"
    if not table.exists():
        return None
    rows = [row for row in read_csv(table) if row.get("data_set") == name]
    counts: dict[str, int] = {}
    for row in rows:
        key = f"{row.get('benchmark')}, {row.get('kind')}"
        counts[key] = counts.get(key, 0) + 1
    return counts
