"""Making the artefacts of a cell: what `quantize` and `patch` share."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from bitsafe import __version__
from bitsafe.cells import Cell
from bitsafe.data.conversations import check_held_out, load_conversations, split_held_out
from bitsafe.data.prompts import load_benchmark, prompt_hash
from bitsafe.data.sources import find
from bitsafe.errors import UserError
from bitsafe.files import read_json, sha256_file, sha256_folder, sha256_json, whole_folder, write_json
from bitsafe.generate.prompts import dressed
from bitsafe.manifest import artefact_identity, provenance, source_identity
from bitsafe.matrix.environments import CORE
from bitsafe.matrix.recipes import data_identity, recipe
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT, DatasetRow
from bitsafe.sharing.store import Store
from bitsafe.steps.status import telling

Maker = Callable[[int, Path, Path, list[dict]], dict[str, Any]]
Dataset = tuple[str, DatasetRow]  # the name and row of a data set


def source_folder(run: Run, model: str, replicate: int) -> Path:
    """Where the full-precision checkpoint of a replicate lies."""
    row = run.model(model)
    if row.path is not None:
        folder = ROOT / row.path.format(replicate=replicate)
    else:
        folder = Path(run.config.results) / "models" / model / "checkpoint"
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no checkpoint of {model} there: mend `path` or `sources` in the models table")
    return folder


def data_dir(run: Run) -> Path | None:
    return Path(run.config.data_dir) if run.config.data_dir else None


def downloads(run: Run) -> Path:
    """Files fetched by URL, shared by all runs."""
    return Path(run.config.results) / "downloads"


def benchmark_rows(run: Run, name: str) -> list[dict]:
    """The prompts of one benchmark of this run."""
    row = run.benchmarks[name].model_dump() | {"name": name}
    return load_benchmark(row, ROOT, data_dir(run), downloads(run))


def rows_at_hand(run: Run, name: str) -> list[dict] | None:
    """The prompts of a benchmark where every file of it is here; None elsewhere: nothing is fetched."""
    files = [file.model_dump() for file in run.benchmarks[name].files().values()]
    at_hand = all(find(file, data_dir(run), downloads(run), name) for file in files)
    return benchmark_rows(run, name) if at_hand else None


def asked_rows(run: Run) -> dict[str, list[dict]]:
    """What a run asks, by benchmark, and again as each decoding with a prefix puts it: another prompt by its hash."""
    asked = {name: benchmark_rows(run, name) for name in run.benchmarks}
    for decoding in run.decodings:
        row = run.decoding(decoding).model_dump()
        if row["user_prefix"]:
            for name in run.benchmarks:
                put = [item | {"messages": dressed(item["messages"], row)} for item in asked[name]]
                asked[f"{name} under {decoding}"] = put
    return asked


def learning_rows(run: Run, found: Dataset | None, *, answered: bool, limit: int | None = None) -> list[dict]:
    """Rows of a risk set (answered) or patch set, none of which any benchmark of the run asks.

    With a limit (this one or the row's own, the smaller) that many are drawn from the rows that are held out; without
    one the whole set is used, and an overlap with the evaluation is an error.
    """
    if found is None:
        return []
    name, row = found
    rows = load_conversations(row.model_dump() | {"name": name}, ROOT, data_dir(run), downloads(run), answered=answered)
    asked = asked_rows(run)
    limit = min((count for count in (limit, row.limit) if count), default=None)
    if limit is None:
        check_held_out(name, rows, asked)
    return split_held_out(rows, chain.from_iterable(asked.values()), limit, run.config.seed)


def benign_rows(run: Run, cell: Cell) -> list[dict]:
    """The model's benign set with its answers; [] if the model names none."""
    if "benign" not in run.model(cell.model).risk_sets:
        return []
    return learning_rows(run, run.risk_set(replace(cell, risk="benign")), answered=True)


@dataclass(frozen=True)
class Making:
    """How the artefacts of a cell are made."""

    step: str
    make: Maker
    rows: list[dict]  # what is learned from, of `data`
    data: Dataset | None
    beside: Sequence[dict] = ()  # rows of another set, which no benchmark may ask either
    proved_on: Sequence[dict] = ()  # rows that only the proof reads


def make_artefacts(run: Run, cell: Cell, how: Making) -> None:
    """Make, prove and record each replicate, then write the index artefacts.json that the next steps read.

    A replicate that was made of the same things and whose artefact is whole (an interrupted run) is kept.
    """
    made, started = [], time.perf_counter()
    for replicate in range(run.replicates(cell.model)):
        folder = run.replicate_folder(cell, replicate)
        wanted = made_from(run, cell, replicate, how)
        if not _is_whole(folder, wanted):
            with telling(folder, how.step):
                _make_one(run, cell, replicate, how, wanted)
        else:
            print(f"{cell} replicate {replicate}: kept from an earlier run")
        made.append({"replicate": replicate, "manifest": f"rep{replicate}/manifest.json"})
        made[-1]["sha256"] = sha256_file(folder / "manifest.json")
    index = {"cell": str(cell), "recipe": recipe(how.step, run, cell), "replicates": made}
    write_json(run.at(cell, "artefacts.json"), index | {"seconds": round(time.perf_counter() - started, 3)})


def made_from(run: Run, cell: Cell, replicate: int, how: Making) -> str:
    """Hash of all that an artefact is made of: its recipe, and what that names without its content or not at all.

    That is the code's place (two methods can have equal parameters), what is learned from as this run's benchmarks
    have left it, the checkpoint, and for a patch the artefact that it patches and how both models are asked.
    """
    row, model = run.patch(cell) if cell.is_patched else run.method(cell), run.model(cell.model)
    source = source_identity(source_folder(run, cell.model, replicate))
    weights = {key: value for key, value in source.items() if key != "origin"}
    patched = None
    if cell.is_patched:
        below = read_json(run.replicate_folder(cell.quantized, replicate) / "manifest.json")
        patched = [below["artefact_sha256"], model.max_new_tokens, model.batch_size]
    rows = [how.rows, list(how.beside), list(how.proved_on)]
    return sha256_json([recipe(how.step, run, cell), row.module, run.config.seed + replicate, weights, patched, rows])


def _is_whole(folder: Path, wanted: str) -> bool:
    if not (folder / "manifest.json").exists() or not (folder / "artefact").is_dir():
        return False
    manifest = read_json(folder / "manifest.json")
    return manifest.get("made_from") == wanted and manifest["artefact_sha256"] == sha256_folder(folder / "artefact")


def _make_one(run: Run, cell: Cell, replicate: int, how: Making, wanted: str) -> None:
    folder, source = run.replicate_folder(cell, replicate), source_folder(run, cell.model, replicate)
    (folder / "manifest.json").unlink(missing_ok=True)  # it must never describe another artefact
    store, key = Store.asked_for(), shared_key(run, cell, wanted)
    found = store and store.take(key, folder)
    made = found or _made(folder, partial(how.make, replicate, source), how.rows)
    if store and not found:
        store.offer(key, folder, made)
    write_json(folder / "learned_from.json", prompt_hashes([*how.rows, *how.beside]))
    manifest = {
        "cell": str(cell),
        "replicate": replicate,
        **cell.columns(),
        "recipe": recipe(how.step, run, cell),
        "made_from": wanted,
        "params": run.params(cell),
        "seed": run.config.seed + replicate,
        "source": source_identity(source),
        "data": how.data and data_facts(how.data, how.rows),
        **made,
    }
    write_json(folder / "manifest.json", manifest)
    print(summary(manifest) + (f", taken from {store.root}" if found else ""))


def _made(folder: Path, make: Callable[[Path, list[dict]], dict], rows: list[dict]) -> dict[str, Any]:
    """Make the artefact; the part of its manifest that is the same in every run that shares it."""
    started = time.perf_counter()
    with whole_folder(folder / "artefact") as out:
        facts = make(out, rows)
    seconds = {"seconds": round(time.perf_counter() - started, 3)}
    return {**facts, **artefact_identity(folder / "artefact"), **seconds, "provenance": provenance()}


def shared_key(run: Run, cell: Cell, wanted: str) -> str:
    """Where a store keeps an artefact: what it is made of, and the software and arithmetic it is made with."""
    from bitsafe.generate.device import arithmetic

    environment = run.method(cell).environment
    lock = "" if environment == CORE else sha256_file(ROOT / "envs" / f"{environment}.lock.txt")
    return sha256_json([wanted, __version__, provenance()["libraries"], lock, arithmetic()])


def prompt_hashes(rows: list[dict]) -> list[str]:
    return sorted({prompt_hash(row["messages"]) for row in rows})


def data_facts(data: Dataset, rows: list[dict]) -> dict[str, Any]:
    """The manifest's `data`: which set, and which of its prompts."""
    name, row = data
    used = {"rows": len(rows), "prompts_sha256": sha256_json(prompt_hashes(rows))}
    return {"name": name, **data_identity(row), **used}


def summary(manifest: dict) -> str:
    """One line for the log: bits, size and time of what was made."""
    bits = manifest.get("effective_bits")
    shown = "" if bits is None else f"{bits:.2f} effective bits, "
    return (
        f"{manifest['cell']} replicate {manifest['replicate']}: {shown}{manifest['bytes'] / 1e6:.1f} MB, "
        f"{manifest['seconds']:.1f} s"
    )
