"""The files of a cell, hashed now, beside the hashes that were recorded when they were written.

artefacts.json ─► manifest.json ─► artefact/        answers.json ─► answers/*.jsonl, and the artefact that answered
verdicts.<judge>.json ─► verdicts/<judge>/*.jsonl   each verdict ─► the answer that it judges
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.files import read_json, read_jsonl, sha256_file, sha256_folder, sha256_text
from bitsafe.matrix.run import Run


def governed(run: Run) -> list[Cell]:
    """Every cell that is an artefact of its own: quantized, or patched."""
    return [cell for cell in run.cells if cell.method != "full" or cell.is_patched]


@dataclass(frozen=True)
class Link:
    """One file (or folder) at hand. recorded: its hash as the file before it in the chain has it."""

    file: str  # below the run's folder
    sha256: str  # "" if it is not at hand
    recorded: str  # "" if nothing records it

    @property
    def state(self) -> str:
        if not self.sha256:
            return "missing"
        return "not recorded" if not self.recorded else "matches" if self.sha256 == self.recorded else "differs"

    @property
    def holds(self) -> bool:
        return self.state == "matches"

    def as_dict(self) -> dict[str, str]:
        return asdict(self) | {"state": self.state}


def broken(links: Iterable[Link]) -> str:
    """The first link that does not hold, in words; "" if all do. No link at all holds nothing."""
    links = list(links)
    if not links:
        return "no file is recorded"
    words = {
        "missing": "is not at hand",
        "differs": "is not the file that was recorded",
        "not recorded": "is not recorded",
    }
    return next((f"{link.file} {words[link.state]}" for link in links if not link.holds), "")


def artefact_links(run: Run, cell: Cell) -> Iterator[Link]:
    """Manifest and artefact folder of every replicate."""
    listed = {entry.get("replicate"): entry.get("sha256", "") for entry in entries(run.at(cell, "artefacts.json"))}
    for replicate in range(run.replicates(cell.model)):
        folder = run.replicate_folder(cell, replicate)
        yield link_to(run, folder / "manifest.json", listed.get(replicate, ""))
        yield link_to(run, folder / "artefact", manifest_of(folder).get("artefact_sha256", ""))


def answer_links(run: Run, cell: Cell, artefacts: bool = True) -> Iterator[Link]:
    """The answers; with `artefacts`, the artefact that gave them, too (indexes of older runs do not name it)."""
    for entry in entries(run.at(cell, "answers.json")) if artefacts else []:
        if "artefact_sha256" in entry:
            folder = run.replicate_folder(cell, int(entry["replicate"])) / "artefact"
            yield link_to(run, folder, entry["artefact_sha256"])
    yield from _listed(run, cell, "answers.json")


def verdict_links(run: Run, cell: Cell, judge: str) -> Iterator[Link]:
    return _listed(run, cell, f"verdicts.{judge}.json")


def judged_others(run: Run, cell: Cell, judge: str) -> str:
    """Which file of verdicts is not about the answers at hand; "" if none is."""
    for entry in entries(run.at(cell, f"verdicts.{judge}.json")):
        folder = run.replicate_folder(cell, int(entry["replicate"]))
        for name in entry.get("files", {}):
            file = folder / name
            answers = folder / "answers" / file.name
            if not file.exists() or not answers.exists() or judged_in(file) != given_in(answers):
                return f"{file.relative_to(run.folder)} is not about the answers at hand"
    return ""


def judged_in(file: Path) -> set[tuple]:
    return {(row.get("id"), row.get("setting"), row.get("sample"), row.get("answer_sha")) for row in read_jsonl(file)}


def given_in(file: Path) -> set[tuple]:
    rows = read_jsonl(file)
    return {(row.get("id"), row.get("setting"), row.get("sample"), sha256_text(str(row.get("answer")))) for row in rows}


def _listed(run: Run, cell: Cell, index: str) -> Iterator[Link]:
    """Every file that an index lists, of every replicate."""
    for entry in entries(run.at(cell, index)):
        folder = run.replicate_folder(cell, int(entry["replicate"]))
        for name, told in entry.get("files", {}).items():
            yield link_to(run, folder / name, told.get("sha256", ""))


def link_to(run: Run, path: Path, recorded: str) -> Link:
    digest = sha256_folder(path) if path.is_dir() else sha256_file(path) if path.is_file() else ""
    return Link(str(path.relative_to(run.folder)), digest, str(recorded))


def entries(index: Path) -> list[dict[str, Any]]:
    """The replicates that an index file lists; none without the file. UserError if it is no such index."""
    if not index.exists():
        return []
    found = read_json(index)
    rows = found.get("replicates") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "replicate" in row for row in rows):
        raise UserError(f"{index}: not an index of replicates: delete it and run again")
    return rows


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a replicate; {} without one."""
    file = folder / "manifest.json"
    found = read_json(file) if file.exists() else {}
    if not isinstance(found, dict):
        raise UserError(f"{file}: not a manifest: delete it and run again")
    return found
