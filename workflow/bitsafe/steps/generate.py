"""generate: the answers of one cell to every benchmark under every decoding, replicate after replicate."""

import time
from functools import partial
from importlib import import_module
from pathlib import Path

from bitsafe.cells import Cell
from bitsafe.data.prompts import prompt_hash
from bitsafe.errors import UserError
from bitsafe.files import read_json, sha256_file, sweep, write_json
from bitsafe.generate.engines import Served
from bitsafe.generate.step import GenerateJob, generate_replicate, second_arm
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import AA, Run
from bitsafe.steps.make import asked_rows
from bitsafe.steps.status import telling


def generate(run: Run, cell: Cell) -> None:
    started = time.perf_counter()
    asked = asked_rows(run)
    benchmarks = {name: asked[name] for name in run.benchmarks}
    replicates = []
    for replicate in range(run.replicates(cell.model)):
        folder = run.replicate_folder(cell, replicate)
        with telling(folder, "generate"):
            sweep(folder / "answers")
            for stage in dict.fromkeys([cell.quantized, cell]):  # a patched cell has learned what it was made of too
                require_held_out(run.replicate_folder(stage, replicate), asked)
            asked_of = read_json(folder / "manifest.json")["artefact_sha256"]
            counts = generate_replicate(job_of(run, cell, folder, replicate, benchmarks))
        files = {name: {"rows": rows, "sha256": sha256_file(folder / name)} for name, rows in counts.files.items()}
        replicates.append({"replicate": replicate, "artefact_sha256": asked_of, "files": files})
        said = f"{counts.generated} answers generated, {counts.found} found in the store, {counts.tokens} tokens"
        print(f"{cell} replicate {replicate}: {said}")
    index = {"cell": str(cell), "recipe": recipe("generate", run, cell), "replicates": replicates}
    write_json(run.at(cell, "answers.json"), index | {"seconds": round(time.perf_counter() - started, 3)})


def job_of(run: Run, cell: Cell, folder: Path, replicate: int, benchmarks: dict[str, list[dict]]) -> GenerateJob:
    model, asked = run.model(cell.model), run.config.generate
    decodings = {}
    for name in run.decodings_of(cell):
        row = run.decoding(name).model_dump()
        decodings[name] = second_arm(row) if name.endswith(AA) else row
    manifest = read_json(folder / "manifest.json")
    engine = import_module(run.engine.module)
    served = Served(folder / "artefact", model.dtype, cell.columns() | {"replicate": replicate}, run.engine.params)
    return GenerateJob(
        opened=partial(engine.opened, served),
        told=engine.told(served),
        identity=[manifest["artefact_sha256"], manifest["source"], model.dtype],
        folder=folder,
        benchmarks=benchmarks,
        decodings=decodings,
        max_new_tokens=asked.max_new_tokens or model.max_new_tokens,
        batch_size=asked.batch_size or model.batch_size,
        seed=run.config.seed + replicate,
        samples=asked.samples,
    )


def require_held_out(folder: Path, benchmarks: dict[str, list[dict]]) -> None:
    """UserError when a benchmark asks what this artefact learned from (a benchmark added after it was made)."""
    learned = set(read_json(folder / "learned_from.json"))
    for name, rows in benchmarks.items():
        shared = sum(prompt_hash(row["messages"]) in learned for row in rows)
        if shared:
            raise UserError(
                f"benchmark {name}: {shared} of its prompts stand among those that {folder.parent} learned from: "
                f"delete that folder, so that it is made again without them, or leave the benchmark out"
            )
