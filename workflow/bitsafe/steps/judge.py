"""judge: the verdicts of one judge on every answer of one cell, replicate after replicate."""

import time
from importlib import import_module

from bitsafe.cells import Cell
from bitsafe.files import sha256_file, write_json
from bitsafe.judges.step import Benchmark, Setting, judge_replicate, opened
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.steps.make import benchmark_rows
from bitsafe.steps.status import telling


def judge(run: Run, cell: Cell, name: str) -> None:
    started = time.perf_counter()
    benchmarks, decodings = benchmarks_of(run, name), run.decodings_of(cell)
    settings = {decoding: run.settings(decoding) for decoding in decodings}
    samples, replicates, total = run.config.generate.samples, [], 0
    with opened(import_module(run.judge(name).module), setting_of(run, name)) as judge_file:
        for replicate in range(run.replicates(cell.model)):
            folder = run.replicate_folder(cell, replicate)
            baseline = run.replicate_folder(cell.baseline, replicate) if run.judge(name).pairwise else None
            with telling(folder / "verdicts" / name, f"judge {name}"):
                files = judge_replicate(folder, name, judge_file, benchmarks, decodings, samples, baseline, settings)
            total += sum(files.values())
            listed = {file: {"rows": rows, "sha256": sha256_file(folder / file)} for file, rows in files.items()}
            replicates.append({"replicate": replicate, "files": listed})
    index = {"cell": str(cell), "judge": name, "recipe": recipe("judge", run, cell, name), "replicates": replicates}
    write_json(run.at(cell, f"verdicts.{name}.json"), index | {"seconds": round(time.perf_counter() - started, 3)})
    print(f"{cell}: {total} verdicts by {name}")


def benchmarks_of(run: Run, name: str) -> dict[str, Benchmark]:
    """The benchmarks that a judge applies to, by name."""
    applies = {key: asked for key, asked in run.benchmarks.items() if run.judge_applies(name, key)}
    return {key: Benchmark(asked.kind, benchmark_rows(run, key)) for key, asked in applies.items()}


def setting_of(run: Run, name: str) -> Setting:
    row = run.judge(name)
    return Setting(name, row.params, row.endpoint, ROOT / row.reads if row.reads else None, run.folder)
