"""judge: the verdicts of one judge on every answer of one cell, replicate after replicate."""

import time
from importlib import import_module

from bitsafe.cells import Cell
from bitsafe.files import sha256_file, write_json
from bitsafe.judges.step import Benchmark, judge_replicate
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run
from bitsafe.steps.make import benchmark_rows
from bitsafe.steps.status import telling


def judge(run: Run, cell: Cell, name: str) -> None:
    started = time.perf_counter()
    row = run.judge(name)
    judge_one = import_module(row.module).judge
    applies = {key: asked for key, asked in run.benchmarks.items() if run.judge_applies(name, key)}
    benchmarks = {key: Benchmark(asked.kind, benchmark_rows(run, key)) for key, asked in applies.items()}
    decodings, samples = run.decodings_of(cell), run.config.generate.samples
    settings = {decoding: run.settings(decoding) for decoding in decodings}
    replicates, total = [], 0
    for replicate in range(run.replicates(cell.model)):
        folder = run.replicate_folder(cell, replicate)
        with telling(folder / "verdicts" / name, f"judge {name}"):
            files = judge_replicate(folder, name, judge_one, row.params, benchmarks, decodings, samples, settings)
        total += sum(files.values())
        listed = {file: {"rows": rows, "sha256": sha256_file(folder / file)} for file, rows in files.items()}
        replicates.append({"replicate": replicate, "files": listed})
    index = {"cell": str(cell), "judge": name, "recipe": recipe("judge", run, cell, name), "replicates": replicates}
    write_json(run.at(cell, f"verdicts.{name}.json"), index | {"seconds": round(time.perf_counter() - started, 3)})
    print(f"{cell}: {total} verdicts by {name}")
