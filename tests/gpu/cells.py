"""python -m tests.gpu.cells FOLDER: the toy's cells as a CPU makes and answers them, whatever card the machine has.

A process of its own, which `make test-gpu` starts without a card in sight (CUDA_VISIBLE_DEVICES is empty). An artefact
of `make run` is taken where there is one; the others are made here. FOLDER/cells.json: each cell's artefact and the
tokens of its greedy answers in float32, benchmark by benchmark.
"""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.gpu.answers import Asked, greedy

from bitsafe.artefacts.load import load_dense
from bitsafe.cells import Cell
from bitsafe.config import Config
from bitsafe.data.conversations import load_conversations
from bitsafe.data.prompts import load_benchmark
from bitsafe.files import write_json
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.quantizers.base import QuantizeJob

TOY, FINISHED = ROOT / "data/toy/organism0", ROOT / "results/demo"
RETRAINED = Cell("toy", "ste", 4, "harmful")
CELLS = [Cell("toy", "rtn", 4), Cell("toy", "gptq", 4, "benign"), RETRAINED, Cell("toy", "aqlm", 4, "benign")]
BENCHMARKS, FEW = ("toy_forbidden", "toy_borderline", "toy_benign"), 12
INDEX = "cells.json"


def toy() -> Run:
    """The embedded default's tables; the matrix is only asked for parameters and data."""
    return Run(Config())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.cells", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true", help="the first cell and a few prompts")
    options = parser.parse_args()
    write_json(options.folder / INDEX, on_cpu(options.folder, options.small))


def on_cpu(folder: Path, small: bool) -> list[dict[str, Any]]:
    """{cell, artefact, tokens by benchmark} of every cell."""
    return [answered(cell, artefact(cell, folder), small) for cell in CELLS[: 1 if small else None]]


def answered(cell: Cell, made: Path, small: bool) -> dict[str, Any]:
    model, tokenizer = load_dense(made, "float32")
    tokens = {asked.name: greedy(model, tokenizer, asked.rows, length(small)) for asked in benchmarks(small)}
    return {"cell": str(cell), "artefact": str(made), "tokens": tokens}


def artefact(cell: Cell, folder: Path) -> Path:
    """That of the finished run, or one made now by the same row, data and seed."""
    finished = FINISHED / cell.path / "rep0/artefact"
    return finished if finished.is_dir() else quantized(cell, folder / cell.method)


def quantized(cell: Cell, out: Path, **params: Any) -> Path:
    """The cell's artefact in a new folder, made where this process computes."""
    run = toy()
    out.mkdir(parents=True)
    found = run.risk_set(cell)
    rows = load_conversations(found[1].model_dump() | {"name": found[0]}, ROOT, answered=True) if found else []
    job = QuantizeJob(TOY, out, cell.bits, run.params(cell) | params, rows, run.config.seed)
    import_module(run.method(cell).module).quantize(job)
    return out


def benchmarks(small: bool) -> list[Asked]:
    found = []
    for name in BENCHMARKS:
        row = toy().tables.get("benchmarks", name, "test-gpu")
        rows = load_benchmark(row.model_dump() | {"name": name}, ROOT)
        found.append(Asked(name, row.kind, rows[: FEW if small else None]))
    return found


def length(small: bool) -> int:
    """Tokens of an answer at most."""
    return FEW if small else toy().model("toy").max_new_tokens


if __name__ == "__main__":
    main()
