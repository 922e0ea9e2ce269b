"""extra: the layer objective of libraries in environments of their own, beside ours, on the same SmolLM2 layers.

`make bench-extra` runs the scripts in tests/bench/rivals and measures ours in the same run. gptqmodel gets the Gram
matrices that our methods get. auto-round wants pieces of equal length, so it gets the same conversations joined and
cut; it tunes whole blocks on their outputs, and the layer objective is not what it minimizes.
"""

import json
import subprocess
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from tests.bench import quantizers
from tests.bench.quantizers import BITS, CHECKPOINT, METHODS, Case, against, load_cases, measure, told_alone

from bitsafe.artefacts.grids import affine_grid
from bitsafe.artefacts.layers import QuantizedLinear
from bitsafe.artefacts.load import load_tokenizer
from bitsafe.data.chat import encode_all
from bitsafe.matrix.environments import interpreter

RIVALS = Path(__file__).with_name("rivals")
GROUP_SIZES, PIECE = (64, 32), 64
OURS = ("aqlm", "quip_sharp", "gptq g64", "gptq g32")


def run() -> list[dict]:
    cases = load_cases()
    quantizers.warm(OURS)
    ours = {(name, bits): measure(METHODS[name], cases, bits) for name in OURS for bits in BITS}
    theirs, tuned = gptqmodel(cases), auto_round(cases)
    measured = ours | theirs | tuned
    rivals = [name for name, bits in (theirs | tuned) if bits == 2]
    rows = [against(measured, name, rival, bits) for name in OURS for rival in rivals for bits in BITS]
    rows = [row | {"name": "extra"} for row in rows]
    return rows + [row | {"name": "extra"} for row in told_alone(measured, len(cases))]


def gptqmodel(cases: list[Case]) -> dict:
    """Its own defaults on inputs whose Gram matrix is that of the calibration inputs."""
    with TemporaryDirectory() as folder:
        tensors = {}
        for case in cases:
            tensors |= {f"{case.name}.weight": case.weight.contiguous(), f"{case.name}.inputs": rooted(case.seen.gram)}
        file = Path(folder) / "layers.safetensors"
        save_file(tensors, file)
        return rival("gptqmodel", "gptqmodel", Path(folder), cases, {"layers": str(file)})


def rooted(gram: torch.Tensor) -> torch.Tensor:
    """X [in, in] with XᵀX = the Gram matrix."""
    values, vectors = torch.linalg.eigh(gram.double())
    return (values.clamp(min=0).sqrt()[:, None] * vectors.T).float().contiguous()


def auto_round(cases: list[Case]) -> dict:
    examples = encode_all(load_tokenizer(CHECKPOINT), quantizers.conversations())
    ids = [token for example in examples[len(examples) // 4 :] for token in example.ids]
    rows = [ids[i : i + PIECE] for i in range(0, len(ids) - PIECE + 1, PIECE)]
    with TemporaryDirectory() as folder:
        job = {"model": str(CHECKPOINT.resolve()), "rows": rows, "layers": list(quantizers.LAYERS)}
        return rival("auto_round", "bench", Path(folder), cases, job)


def rival(script: str, environment: str, folder: Path, cases: list[Case], job: dict) -> dict:
    """{(name, bits): measures} of a script's weights; effective bits are those of a grid like `gptq`'s."""
    out, facts = folder / "out.safetensors", folder / "facts.json"
    job |= {"bits": list(BITS), "group_sizes": list(GROUP_SIZES), "out": str(out), "facts": str(facts)}
    (folder / "job.json").write_text(json.dumps(job))
    command = [interpreter(environment), "-I", RIVALS / f"{script}.py", folder / "job.json"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{script}.py ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    said, weights = json.loads(facts.read_text()), load_file(out)
    share = said["cpu_seconds"] / len(BITS) / len(GROUP_SIZES)
    found = {}
    for bits in BITS:
        for group in GROUP_SIZES:
            scored = [score(case, weights[f"{case.name}.{bits}.{group}"], bits, group) for case in cases]
            objectives, used = zip(*scored)
            facts_of = {"objective": mean(objectives), "by_layer": list(objectives), "effective_bits": mean(used)}
            found[f"{said['library']} g{group}", bits] = facts_of | {"cpu_seconds": share}
    return found


def score(case: Case, weight: torch.Tensor, bits: int, group_size: int) -> tuple[float, float]:
    grid = affine_grid(case.weight, bits, group_size)
    layer = QuantizedLinear(case.name, grid.nearest(case.weight), grid)
    return case.objective_of(weight), (layer.code_bits + layer.side_bits) / layer.numel
