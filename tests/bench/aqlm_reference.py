"""aqlm_reference: `aqlm` against its authors' code on the same SmolLM2 layers: layer objective and CPU seconds.

Both get a layer's Gram matrix and layout, and neither tunes blocks. Theirs (github.com/Vahe1994/AQLM, Apache-2.0, at
the commit that the Makefile names) runs with the tolerance that its README asks for and its defaults otherwise: Adam in
float64 at 1e-4 in rounds of 100 steps, beam 1. Told on inputs that neither saw, as in `quantizers`, one thread each.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file
from tests.bench.quantizers import BITS, METHODS, UNIT, Case, load_cases

from bitsafe.quantizers.additive.layouts import AUTO, choose

SOURCE = Path(".envs/aqlm-reference").resolve()
SCRIPT = Path(__file__).with_name("rivals") / "aqlm_reference.py"
Found = dict[tuple[str, int], tuple[float, float]]  # layer and bits: objective, CPU seconds


def run() -> list[dict]:
    if not (SOURCE / "aq_engine.py").exists():
        raise SystemExit("bench: aqlm_reference: the authors' code is missing: make .envs/aqlm-reference/aq_engine.py")
    cases = load_cases()
    mine, theirs = ours(cases), reference(cases)
    return [row for bits in BITS for row in rows(bits, [case.name for case in cases], mine, theirs)]


def ours(cases: list[Case]) -> Found:
    found = {}
    for case in cases:
        for bits in BITS:
            started = time.process_time()
            layer = METHODS["aqlm"](case, bits)
            found[case.name, bits] = (case.objective(layer), time.process_time() - started)
    return found


def reference(cases: list[Case]) -> Found:
    with TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / name) for name in ("layers", "out", "facts", "job.json")}
        tensors = {f"{case.name}.weight": case.weight.contiguous() for case in cases}
        save_file(tensors | {f"{case.name}.gram": case.seen.gram.contiguous() for case in cases}, files["layers"])
        Path(files["job.json"]).write_text(json.dumps(files | {"layouts": layouts(cases)}))
        command = [sys.executable, str(SCRIPT), files["job.json"]]
        ended = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, cwd=folder
        )
        if ended.returncode:
            raise SystemExit(f"{SCRIPT.name} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
        weights, seconds = load_file(files["out"]), json.loads(Path(files["facts"]).read_text())["cpu_seconds"]
    keys = [(case, bits, f"{case.name}.{bits}") for case in cases for bits in BITS]
    return {(case.name, bits): (case.objective_of(weights[key]), seconds[key]) for case, bits, key in keys}


def layouts(cases: list[Case]) -> dict[int, list[int]]:
    """Those that ours takes for these layers: codebooks, bits of a code, inputs a group, by bits."""
    shapes = {case.name: tuple(case.weight.shape) for case in cases}
    chosen = {bits: choose(AUTO, bits, shapes, number_bits=0) for bits in BITS}
    return {bits: [layout.codebooks, layout.code_bits, layout.group] for bits, layout in chosen.items()}


def rows(bits: int, layers: list[str], mine: Found, theirs: Found) -> list[dict]:
    """A row of the mean objective over the layers and one of the seconds of all."""
    told = []
    for place, what, unit, together in ((0, "objective", UNIT, mean), (1, "time", "CPU s", sum)):
        pairs = [(mine[name, bits][place], theirs[name, bits][place]) for name in layers]
        first, second = (together(side) for side in zip(*pairs))
        ratios = [one / other for one, other in pairs]
        row = {"name": "aqlm_reference", "method": "aqlm", "bits": bits, "what": what, "ours": first, "peer": second}
        row |= {"peer_name": "the authors' code", "ratio": first / second, "unit": unit, "n": len(layers)}
        told.append(row | {"spread": [min(ratios), max(ratios)], "by_layer": dict(zip(layers, pairs))})
    return told
