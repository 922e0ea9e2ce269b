"""The recipe of a job: a hash of the config slice it reads and of the VERSION of the one module it runs.

Snakemake compares it (as `params`) with the recorded one, so a job runs again exactly when its recipe moved. Files
that ship with the repository enter by content, never by time: a clone, checkout or touch plans nothing.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.files import sha256_file, sha256_folder, sha256_json
from bitsafe.matrix.data_rows import FILES
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT, DatasetRow, Row, labels_file, version
from bitsafe.report.published.papers import published

# keys of a row that are for people, or say where to look and how fast: editing them reruns nothing
UNREAD = {"summary", "licence", "warning", "split", "names", "risk", "provenance", "endpoint", "resources", "checked"}
UNREAD |= {"judge_slots", "architecture"}
UNREAD |= {"benchmarks"}  # of a judge: its recipe names those it reads
UNREAD |= {"rows", "tokens"}  # of a set: how much work it is
# keys that rows did not have from the beginning: unset, they move no recipe
LATER = {
    *("user_prefix", "grid", "parts", "beside", "task", "sample", "leave_out", "duplicates"),
    *("kinds", "pairwise", "reads", "asks"),
}


def recipe(step: str, run: Run, *nouns: Cell | str) -> str:
    """Short hash of everything the job `step` of these nouns depends on besides its input files."""
    key = step, *_read(step, *nouns)
    if key not in run.recipes:
        run.recipes[key] = sha256_json(SLICES[step](run, *nouns))[:16]
    return run.recipes[key]


def _read(step: str, *nouns: Cell | str) -> tuple:
    """What a recipe reads of its nouns: cells of one model are asked and judged alike, but for full precision."""
    if step not in ("generate", "distance", "judge"):
        return nouns
    cell, *judge = nouns
    return cell.model, cell == cell.baseline, *judge


def quantize(run: Run, cell: Cell) -> dict:
    row = run.method(cell)
    found = run.risk_set(cell)
    return {
        "version": version(row.module),
        "params": run.params(cell),
        "limits": row.limits.get(cell.bits, {}),
        "bits": cell.bits,
        "data": found and data_identity(found[1]),
        "seed": run.config.seed,
        "model": model_identity(run, cell.model),
    }


def patch(run: Run, cell: Cell) -> dict:
    row, params = run.patch(cell), run.params(cell)
    benign = run.risk_set(replace(cell, risk="benign")) if params.get("utility_examples") else None
    return ({"utility": data_identity(benign[1])} if benign else {}) | {
        "version": version(row.module),
        "params": {key: value for key, value in params.items() if key != "pairs_from"},  # `data` is what it names
        "data": data_identity(run.patch_set(cell)[1]),
        "seed": run.config.seed,
        "model": model_identity(run, cell.model),
    }


def generate(run: Run, cell: Cell) -> dict:
    model = run.model(cell.model)
    other = {} if run.config.generate.engine == "transformers" else {"engine": row_identity(run.engine)}
    if any(row.asks == "choice" for row in run.benchmarks.values()):
        other |= {"options": version("bitsafe.generate.options")}
    return other | {
        "version": version("bitsafe.generate.engine"),
        "benchmarks": {name: data_identity(row) for name, row in run.benchmarks.items()},
        "decodings": {name: row_identity(run.decoding(name)) for name in run.decodings_of(cell)},
        "max_new_tokens": run.config.generate.max_new_tokens or model.max_new_tokens,
        "batch_size": run.config.generate.batch_size or model.batch_size,
        "samples": run.config.generate.samples,
        "seed": run.config.seed,
        "replicates": run.replicates(cell.model),
    }


def distance(run: Run, cell: Cell) -> dict:
    return {
        "version": version("bitsafe.distance.measures"),
        "distance": run.config.distance.model_dump(),
        "benchmarks": {name: data_identity(run.benchmarks[name]) for name in run.measured_benchmarks},
        "decoding": row_identity(run.decoding(run.measured_decoding)),
        "replicates": run.replicates(cell.model),
    }


def judge(run: Run, cell: Cell, judge: str) -> dict:
    row = run.judge(judge)
    benchmarks = {name: data_identity(row) for name, row in run.benchmarks.items() if run.judge_applies(judge, name)}
    reads = {"content": _file_identity(row.reads)} if row.reads else {}
    return reads | {
        "version": version(row.module),
        "degenerate": version("bitsafe.judges.degenerate"),
        "judge": row_identity(row),
        "benchmarks": benchmarks,
        "decodings": run.decodings_of(cell),
    }


def score(run: Run) -> dict:
    measured = {"distance": run.config.distance.model_dump()} if run.config.distance.tokens else {}
    return measured | {
        "version": version("bitsafe.stats.assemble"),
        "score": run.config.score.model_dump(),
        "cells": [str(cell) for cell in run.cells],
        "benchmarks": {name: row.kind for name, row in run.benchmarks.items()},
        "decodings": run.decodings,
        "judges": run.judges,
        "labels": {name: sha256_file(file) for name in run.judges if (file := labels_file(name)).exists()},
    }


def near_duplicates(run: Run) -> dict:
    return {
        "version": version("bitsafe.data.near_duplicates"),
        "sets": {name: data_identity(row) for name, (row, _uses) in run.learned_sets.items()},
        "benchmarks": {name: data_identity(row) for name, row in run.benchmarks.items()},
    }


def tables(run: Run) -> dict:
    modules = ("bitsafe.report.patched.table", "bitsafe.report.published.write")
    return {"version": [version(module) for module in modules], "published": published()}


def figures(run: Run) -> dict:
    modules = ("bitsafe.report.figures", "bitsafe.report.patched.drawing", "bitsafe.report.published.write")
    return {"version": [version(module) for module in modules], "published": published()}


def report(run: Run) -> dict:
    return {"version": version("bitsafe.report.html"), "report": run.config.report.model_dump()}


def register(run: Run) -> dict:
    """A label, licence or summary of the tables moves no number, but it moves what the register says."""
    models = {name: [run.model(name).licence, run.model(name).warning] for name in run.config.models}
    sets = {str(cell): found[1].model_dump() for cell in run.cells if (found := run.risk_set(cell))}
    said = {"release": run.config.release.model_dump(), "models": models, "sets": sets}
    return said | {"version": version("bitsafe.register.write")}


def gate(run: Run) -> dict:
    policy = Path(run.config.gate.policy)
    content = sha256_file(policy) if policy.is_file() else None  # told when the gate is asked for, not before
    return {"version": version("bitsafe.gate.evaluate"), "policy": content}


def fetch_model(run: Run, model: str) -> dict:
    return {"version": version("bitsafe.data.checkpoints"), "sources": run.model(model).sources}


SLICES: dict[str, Any] = {
    "fetch_model": fetch_model,
    "quantize": quantize,
    "patch": patch,
    "generate": generate,
    "distance": distance,
    "judge": judge,
    "score": score,
    "near_duplicates": near_duplicates,
    "tables": tables,
    "figures": figures,
    "report": report,
    "register": register,
    "gate": gate,
}


def row_identity(row: Row) -> dict:
    read = {key: value for key, value in row.model_dump().items() if key not in UNREAD}
    return {key: value for key, value in read.items() if value is not None or key not in LATER}


@lru_cache(maxsize=256)
def _file_identity(path: str) -> str:
    file = ROOT / path
    if not file.exists():
        raise UserError(f"{path}: no such file, named by `file` or `reads` in a table row")
    return sha256_file(file)


def data_identity(row: DatasetRow) -> dict:
    """The row, and the content of the file that it names when that ships with the repository."""
    content = _file_identity(row.file) if row.file else row.sha256
    known = {**row_identity(row), "content": content}
    for key in FILES:
        if files := known.get(key):
            known[key] = {name: {k: v for k, v in file.items() if k not in UNREAD} for name, file in files.items()}
    return known | ({"task_version": version(row.task)} if row.task else {})


def model_identity(run: Run, model: str) -> dict:
    row = run.model(model)
    replicates = run.replicates(model)
    if row.path is None:
        return {"sources": row.sources, "replicates": replicates, "dtype": row.dtype}
    folders = [row.path.format(replicate=k) for k in range(replicates)]
    return {"folders": [_folder_identity(folder) for folder in folders], "dtype": row.dtype}


@lru_cache(maxsize=256)
def _folder_identity(path: str) -> str:
    folder = ROOT / path
    if not Path(folder).is_dir():
        raise UserError(f"{path}: no such folder, named by `path` in workflow/tables/models.yaml")
    return sha256_folder(folder)
