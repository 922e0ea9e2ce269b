"""patch: every replicate of one repaired (or control) cell, from the quantized artefact to a proved one."""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from bitsafe.artefacts.check import prove
from bitsafe.cells import Cell
from bitsafe.generate.device import compute_dtype
from bitsafe.generate.engine import complete
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import version
from bitsafe.patches.base import PatchJob
from bitsafe.steps.make import Making, benign_rows, learning_rows, make_artefacts
from bitsafe.steps.memory import within_memory


def patch(run: Run, cell: Cell) -> None:
    row, params, model = run.patch(cell), run.params(cell), run.model(cell.model)
    dtype = compute_dtype(model.dtype)
    module = import_module(row.module)
    data = run.patch_set(cell)
    generate = partial(complete, max_new_tokens=model.max_new_tokens, batch_size=model.batch_size)

    def make(replicate: int, source: Path, out: Path, rows: list[dict]) -> dict[str, Any]:
        artefact = run.replicate_folder(cell.quantized, replicate) / "artefact"
        seed = run.config.seed + replicate
        with within_memory("patches", params):
            facts = module.patch(PatchJob(artefact, source, out, rows, params, seed, dtype, generate, utility))
            proof = prove(out, source, {}, rows, bits=cell.bits, dtype=dtype)
        return {"version": version(row.module), "facts": facts, **proof}

    wanted = params.get("utility_examples", 0)
    utility = benign_rows(run, cell)[:wanted] if wanted else []
    rows = learning_rows(run, data, answered=False, limit=params.get("prompts"))
    make_artefacts(run, cell, Making("patch", make, rows, data, beside=utility))
