"""The seven steps of the deployment checklist, each with what the files at hand show of it. Nothing is taken on trust.

A step is done when its files are at hand with the hashes that were recorded, and its numbers stand in the tables;
else it is not done, with the reason. A machine's review of calibration data says where the data is from, what its
label is, and that the prompts learned from are those; whether the label is right is for a person to say.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.files import read_json, sha256_json
from bitsafe.gate.measured import Tables
from bitsafe.manifest import sha256_folder_of
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT, DatasetRow
from bitsafe.register.data import near_pairs, set_link
from bitsafe.register.evidence import (
    Link,
    answer_links,
    artefact_links,
    broken,
    judged_others,
    link_to,
    manifest_of,
    verdict_links,
)
from bitsafe.register.numbers import Numbers, numbers_of
from bitsafe.stats.states import failure
from bitsafe.steps.make import source_folder

PROOF = ("effective_bits", "stored_bits", "size_ratio", "logit_error", "weight_error", "perplexity_ratio", "bytes")


@dataclass(frozen=True)
class Step:
    name: str
    reason: str  # why it is not done; "" if it is
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return not self.reason

    def as_dict(self) -> dict[str, Any]:
        state = {"step": self.name, "state": "done" if self.done else "not done"}
        return state | ({} if self.done else {"reason": self.reason}) | {"evidence": self.evidence}


def steps_of(run: Run, tables: Tables, cell: Cell) -> list[Step]:
    return [step(run, tables, cell) for step in STEPS.values()]


def measured(run: Run, tables: Tables, name: str, cell: Cell, contrasts: tuple[str, ...]) -> Step:
    """One cell, answered, judged and scored."""
    links = [*answer_links(run, cell)]
    links += [link for judge in run.judges for link in verdict_links(run, cell, judge)]
    found: Numbers = numbers_of(run, tables, cell, contrasts)
    others = [said for judge in run.judges if (said := judged_others(run, cell, judge))]
    reason = failure(run, cell) or broken(links) or "; ".join([*others, *found.missing][:3])
    reason = reason or ("" if found.rows else "no number stands in the tables")
    evidence = {"cell": str(cell), "numbers": found.rows, "missing": found.missing, "files": listed(links)}
    return Step(name, reason, evidence)


def full_precision_evaluation(run: Run, tables: Tables, cell: Cell) -> Step:
    """The baseline, and whether the full-precision weights at hand are those that it was."""
    found = measured(run, tables, "full_precision_evaluation", cell.baseline, ())
    links = [source_link(run, cell.baseline, k) for k in range(run.replicates(cell.model))]
    other = [link for link in links if link.state == "differs"]
    return Step(
        found.name, found.reason or (broken(other) if other else ""), found.evidence | {"weights": listed(links)}
    )


def source_link(run: Run, cell: Cell, replicate: int) -> Link:
    recorded = (manifest_of(run.replicate_folder(cell, replicate)).get("source") or {}).get("weights_sha256", "")
    try:
        folder = source_folder(run, cell.model, replicate)
    except UserError:  # kept elsewhere since: what was answered and judged is not less evidence for that
        return Link(f"full-precision weights of {cell.model}, replicate {replicate}", "", recorded)
    where = str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else f"{folder.parent.name}/{folder.name}"
    return Link(where, sha256_folder_of(folder, "*.safetensors"), recorded)


def quantization(run: Run, tables: Tables, cell: Cell) -> Step:
    """The quantized artefact with its proof; of a patched cell the one it was patched from."""
    cell = cell.quantized
    links = list(artefact_links(run, cell))
    proof = {f"rep{k}": proof_of(run, cell, k) for k in range(run.replicates(cell.model))}
    reason = failure(run, cell) or broken(links)
    return Step("quantization", reason, {"cell": str(cell), "proof": proof, "files": listed(links)})


def re_evaluation(run: Run, tables: Tables, cell: Cell) -> Step:
    return measured(run, tables, "re_evaluation", cell.quantized, ("total", "quantization"))


def calibration_data_review(run: Run, tables: Tables, cell: Cell) -> Step:
    """What the quantizer learned from: which set, from where, under which label, and that it is the one at hand."""
    folder = run.replicate_folder(cell.quantized, 0)
    manifest, named = manifest_of(folder), run.risk_set(cell)
    evidence: dict[str, Any] = {"risk_of_cell": cell.risk, "near_duplicates": None}
    if not manifest:
        return Step("calibration_data_review", "there is no manifest", evidence)
    learned = folder / "learned_from.json"
    if not learned.exists():
        return Step("calibration_data_review", f"{learned.relative_to(run.folder)} is not at hand", evidence)
    used, prompts = manifest.get("data"), read_json(learned)
    evidence |= {"data": used, "prompts_learned_from": len(prompts), "learned_from": link_to(run, learned, "").sha256}
    if used is None:
        reason = f"the manifest names no data, and {len(prompts)} prompts were learned from" if prompts else ""
        return Step("calibration_data_review", reason, evidence | {"label": "no calibration data"})
    if named is None or named[0] != used.get("name"):
        return Step("calibration_data_review", f"the manifest names {used.get('name')!r}, the run does not", evidence)
    return reviewed(run, cell.quantized, named, used, prompts, evidence)


def reviewed(
    run: Run, cell: Cell, named: tuple[str, DatasetRow], used: dict, prompts: list, evidence: dict[str, Any]
) -> Step:
    name, row = named
    link = set_link(run, row, used)
    pairs = near_pairs(run, name)
    origin = {"file": row.file, "url": row.url, "revision": row.revision, "licence": row.licence}
    evidence |= {"label": row.risk, "provenance": row.provenance or row.summary, "origin": origin}
    evidence |= {"file": link.as_dict(), "near_duplicates": pairs}
    same = sha256_json(prompts) == used.get("prompts_sha256") and all(
        manifest_of(run.replicate_folder(cell, k)).get("data") == used for k in range(run.replicates(cell.model))
    )
    reasons = {
        "its row declares no risk": row.risk is None,
        "its row says nothing of where it is from": not (row.provenance or row.url or row.file),
        broken([link]): not link.holds,
        "the prompts learned from are not those of the manifest": not same,
        "tables/near_duplicates.csv is not at hand": pairs is None,
    }
    return Step("calibration_data_review", first_true(reasons), evidence)


def production_decoding_tested(run: Run, tables: Tables, cell: Cell) -> Step:
    """Whether the decoding that production uses was among those that were measured."""
    name = run.config.release.production_decoding
    asked = {key: run.decoding(key).model_dump() for key in run.decodings}
    evidence: dict[str, Any] = {"tested": asked, "production": name}
    config = run.replicate_folder(cell, 0) / "artefact" / "generation_config.json"
    evidence["generation_config"] = link_to(run, config, "").sha256
    if name is None:
        said = "release.production_decoding is not set: say which decoding production uses"
        return Step("production_decoding_tested", said, evidence)
    if name not in run.decodings:
        return Step("production_decoding_tested", f"production decodes with {name}, which was not tested", evidence)
    found = numbers_of(run, tables, cell)
    of_it = [row for row in found.rows if row["decoding"] == name or row["decoding"].startswith(f"{name}_")]
    evidence["numbers"] = of_it
    return Step("production_decoding_tested", "" if of_it else "nothing was measured under it", evidence)


def patch_applied_and_retested(run: Run, tables: Tables, cell: Cell) -> Step:
    if not cell.is_patched:
        others = [str(other) for other in run.cells if other.is_patched and other.quantized == cell]
        said = (
            f"this artefact has no patch; patched ones are {', '.join(others)}" if others else "no patch was asked for"
        )
        return Step("patch_applied_and_retested", said, {"patched_cells": others})
    retested = measured(run, tables, "patch_applied_and_retested", cell, ("repair", "total"))
    links = list(artefact_links(run, cell))
    manifest = manifest_of(run.replicate_folder(cell, 0))
    control = "this stage is a control, not a repair" if cell.stage in run.controls else ""
    evidence = retested.evidence | {"patch": cell.stage, "params": run.params(cell), "data": manifest.get("data")}
    evidence["files"] = [*listed(links), *evidence["files"]]
    return Step(retested.name, control or broken(links) or retested.reason, evidence)


def artefact_recorded(run: Run, tables: Tables, cell: Cell) -> Step:
    """The artefact of the cell itself: its files, each hashed now."""
    links = list(artefact_links(run, cell))
    replicates = {}
    for k in range(run.replicates(cell.model)):
        folder = run.replicate_folder(cell, k)
        manifest = manifest_of(folder)
        facts = {key: manifest.get(key) for key in ("source", "seed", "recipe", "version", "provenance")}
        replicates[f"rep{k}"] = {"files": file_hashes(run, folder / "artefact"), **proof_of(run, cell, k), **facts}
    reason = failure(run, cell) or broken(links)
    return Step("artefact_recorded", reason, {"cell": str(cell), "replicates": replicates, "files": listed(links)})


def proof_of(run: Run, cell: Cell, replicate: int) -> dict[str, Any]:
    manifest = manifest_of(run.replicate_folder(cell, replicate))
    return {key: manifest[key] for key in PROOF if key in manifest}


def file_hashes(run: Run, folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): link_to(run, path, "").sha256 for path in files}


def listed(links: Iterable[Link]) -> list[dict[str, str]]:
    return [link.as_dict() for link in links]


def first_true(reasons: dict[str, bool]) -> str:
    return next((reason for reason, holds in reasons.items() if holds), "")


STEPS: dict[str, Callable[[Run, Tables, Cell], Step]] = {
    step.__name__: step
    for step in (
        full_precision_evaluation,
        quantization,
        re_evaluation,
        calibration_data_review,
        production_decoding_tested,
        patch_applied_and_retested,
        artefact_recorded,
    )
}
