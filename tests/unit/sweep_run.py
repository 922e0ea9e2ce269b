"""A synthetic run that varies τ of Q-resafe and of its random control, for the tests of what is told of patches."""

from pathlib import Path

import report_run

from bitsafe.cells import Cell
from bitsafe.files import read_json, write_json
from bitsafe.matrix.run import Run
from bitsafe.stats.assemble import assemble

SHARES = {"qresafe_tau0": 0.0, "qresafe": 0.2, "qresafe_tau06": 0.6}
CONTROLS = {"random_mask": 0.2, "random_mask_tau06": 0.6}
TABLES = {
    "patches": {
        "qresafe_tau0": {"base": "qresafe", "tau": 0},
        "qresafe_tau06": {"base": "qresafe", "tau": 0.6},
        "qresafe_any": {"base": "qresafe", "params": {"mask_mode": "any"}},
        "random_mask_tau06": {"base": "random_mask", "tau": 0.6},
    }
}
STAGES = [*SHARES, "qresafe_any", *CONTROLS]
MATRIX = [{"methods": ["ste"], "bits": [4], "risks": ["harmful"], "patches": STAGES}]
STE = Cell("toy", "ste", 4, "harmful")
RATES = {"qresafe_tau0": (1, 0.9, 1), "qresafe": (0.1, 0, 0.2), "qresafe_tau06": (0, 0, 0), "qresafe_any": (0, 0, 0.1)}
RATES |= {"random_mask": (0.7, 0.8, 0.9), "random_mask_tau06": (0.3, 0.2, 0.1)}


def sweep_run(results: Path, monkeypatch) -> Run:
    """Six patches of one cell, 30 prompts a benchmark; each manifest says what its patch took."""
    rate, beside = report_run.rate, report_run.beside
    monkeypatch.setattr(report_run, "rate", lambda c, k: RATES[c.stage][k] if c.is_patched else rate(c, k))
    monkeypatch.setattr(report_run, "beside", lambda c, kind: beside(c.quantized, kind))
    run = report_run.small_run(results, matrix=MATRIX, tables=TABLES)
    for cell in run.cells:
        for replicate in range(3) if cell.is_patched else ():
            file = run.replicate_folder(cell, replicate) / "manifest.json"
            write_json(file, read_json(file) | {"facts": facts(replicate)})
    assemble(run)
    return run


def facts(replicate: int) -> dict:
    return {
        "pairs": {"refuse_comply": 60 + replicate, "both_comply": 2, "identical": 66 - replicate},
        "seconds": 10.0 + replicate,
        "cpu_seconds": 8.0,
        "pair_seconds": 4.0,
        "flops": 2e11,
        "peak_memory_mb": 500.0 + 10 * replicate,
        "added_memory_mb": 90.0 - 10 * replicate,
        "codes_changed": 0.004,
    }
