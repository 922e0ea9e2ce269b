"""quantize: every replicate of one cell, from its full-precision checkpoint to a proved artefact."""

from importlib import import_module
from pathlib import Path
from typing import Any

from bitsafe.artefacts.check import prove
from bitsafe.cells import Cell
from bitsafe.generate.device import compute_dtype
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import version
from bitsafe.quantizers.base import QuantizeJob, require_memory
from bitsafe.steps.make import Making, benign_rows, learning_rows, make_artefacts
from bitsafe.steps.memory import within_memory


def quantize(run: Run, cell: Cell) -> None:
    row, params, dtype = run.method(cell), run.params(cell), compute_dtype(run.model(cell.model).dtype)
    module = import_module(row.module)
    data = run.risk_set(cell)

    def make(replicate: int, source: Path, out: Path, rows: list[dict]) -> dict[str, Any]:
        seed = run.config.seed + replicate
        job = QuantizeJob(source, out, cell.bits, params, rows, seed, dtype)
        require_memory(job, getattr(module, "BYTES_A_WEIGHT", None))
        with within_memory("methods", params):
            facts = module.quantize(job)
            stored = facts.get("artefact_bits", cell.bits)  # a merged adapter leaves full precision
            proof = prove(out, source, row.limits.get(cell.bits, {}), rows or benign, bits=stored, dtype=dtype)
        return {"version": version(row.module), "facts": facts, **proof}

    rows = learning_rows(run, data, answered=True)
    benign = [] if rows else benign_rows(run, cell)
    make_artefacts(run, cell, Making("quantize", make, rows, data, proved_on=benign))
