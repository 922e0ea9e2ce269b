"""One measurement: a job on a model of some depth, its seconds and peaks, and what the formulas say of that job."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import torch
from tests.gpu.meter import Measured, watched
from tests.gpu.seven import BITS, METHODS, MODEL, TOY, Bed, Shape, bed, planned, prompts, random_model

from bitsafe.artefacts.load import load_tokenizer
from bitsafe.artefacts.quiet import quiet
from bitsafe.cells import Cell
from bitsafe.generate.device import compute_dtype, place
from bitsafe.generate.engine import answer, complete
from bitsafe.generate.prompts import prompt_ids
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import Tables
from bitsafe.patches import qresafe
from bitsafe.patches.base import PatchJob
from bitsafe.quantizers import rtn
from bitsafe.quantizers.base import QuantizeJob
from bitsafe.resources.coefficients import coefficients
from bitsafe.resources.estimates import Estimates
from bitsafe.resources.requests import Requests

CELLS = {name: ("quantize", Cell(MODEL, name, BITS, "benign")) for name in METHODS}
CELLS |= {"qresafe": ("patch", Cell(MODEL, "rtn", BITS, stage="qresafe"))}
CELLS |= {"generation": ("generate", Cell(MODEL, "full", 16))}
LIBRARIES = {"gptq": ("llmcompressor",), "awq": ("llmcompressor",), "qlora": ("bitsandbytes", "peft")}
PARTS = ("pairs_used", "pair_seconds", "snip_seconds", "train_seconds", "export_seconds", "refreshes")  # of a patch

# (layers, steps) of each measurement, in the order in which they are taken: a line in layers needs two depths, one in
# steps too a third point. Generation takes the whole model.
DEPTHS: dict[str, list[tuple[int, int]]] = {
    "generation": [(32, 0)],
    "gptq": [(2, 0), (4, 0)],
    "awq": [(2, 0), (4, 0)],
    "quip_sharp": [(1, 0), (2, 0)],
    "qlora": [(4, 2), (8, 2), (4, 8)],
    "qresafe": [(2, 10), (4, 10), (2, 20)],  # a mask every ten steps, as its row has it
    "aqlm": [(1, 2), (2, 2), (1, 12)],
}
SMALL_DEPTHS = {"generation": [(2, 0)]} | {name: [(1, 2), (2, 2)] for name in DEPTHS if name != "generation"}


def measure(name: str, shape: Shape, layers: int, steps: int) -> Measured:
    """A point: {layers, steps, estimate} and what `watched` says of the job."""
    os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")  # read when it is imported
    with suppress(ImportError):  # before the clock starts; the job itself says which library is missing
        for library in LIBRARIES.get(name, ()):
            import_module(library)
    made = generating(shape, layers) if name == "generation" else making(name, shape, layers, steps)
    return {"layers": layers, "steps": steps} | made | {"estimate": estimate(name, shape, layers, steps)}


def estimate(name: str, shape: Shape, layers: int, steps: int) -> Measured:
    with planned(shape, layers, steps) as run:
        return expected(name, run)


def full_steps(name: str) -> int:
    """The steps of a method or patch as its row ships; 0 where it takes none."""
    _, cell = CELLS[name]
    kind = ("patches", cell.stage) if cell.is_patched else ("methods", cell.method)
    return 0 if name == "generation" else Tables().get(*kind, "bench").params.get("steps", 0)


def expected(name: str, run: Run) -> Measured:
    """What the formulas of docs/resources.md expect of the job, proof and imports included, and what it asks for."""
    step, cell = CELLS[name]
    found, asked = Estimates(run).of(step, cell), Requests(run).of(step, cell)
    own = {"seconds": found.seconds, "gpu_mb": found.gpu_mb, "host_mb": found.mem_mb}
    own |= {"asked_gpu_mb": found.gpu_mb * coefficients().requests.gpu_margin, "asked_host_mb": asked["mem_mb"]}
    return own | {"gpus": asked["gpu"], "minutes": asked["runtime"]}


def making(name: str, shape: Shape, layers: int, steps: int) -> Measured:
    with bed(shape, layers, steps) as made:
        torch.manual_seed(0)
        return watched(patching(made, shape) if name == "qresafe" else quantizing(name, made))


def quantizing(name: str, made: Bed) -> Callable[[], Any]:
    """The work of a quantize job, its proof left out."""
    _, cell = CELLS[name]
    out = made.folder / "artefact"
    out.mkdir()
    job = QuantizeJob(made.source, out, BITS, made.run.params(cell), made.conversations, 0, compute_dtype("bfloat16"))
    module = import_module(made.run.method(cell).module)

    def work() -> None:
        module.quantize(job)

    return work


def patching(made: Bed, shape: Shape) -> Callable[[], Any]:
    """The work of a patch job, its proof left out; the round-to-nearest cell below it is made here."""
    _, cell = CELLS["qresafe"]
    artefact, out = made.folder / "artefact", made.folder / "patched" / "artefact"
    for folder in (artefact, out):
        folder.mkdir(parents=True)
    rtn.quantize(QuantizeJob(made.source, artefact, BITS, made.run.params(cell.quantized)))
    params, generate = made.run.params(cell), partial(complete, batch_size=shape.batch)
    rows = made.conversations[: params["prompts"]]
    job = PatchJob(artefact, made.source, out, rows, params, 0, compute_dtype("bfloat16"), generate)

    def work() -> Measured:
        facts = qresafe.patch(job)
        return {name: facts[name] for name in PARTS if name in facts}

    return work


def generating(shape: Shape, layers: int) -> Measured:
    """Every prompt to its full length, by our engine and by transformers' `generate` in input order, on one model."""
    tokenizer, model, rows = load_tokenizer(TOY), place(random_model(shape, layers)), prompts(shape)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = -1, 0  # no answer ends early
    for engine in (ours, plain):  # the first kernels of a shape are compiled or looked up
        engine(model, tokenizer, rows[: shape.batch], shape.batch, 2)
    mine, peer = (watched(partial(engine, model, tokenizer, rows, shape.batch, shape.new)) for engine in (ours, plain))
    return mine | {"peer": peer}


def ours(model: Any, tokenizer: Any, rows: list[dict], size: int, new: int) -> Measured:
    answers = [one for batch in answer(model, tokenizer, rows, {}, new, size) for one in batch]
    return {"answers": len(answers), "tokens": sum(one.n_tokens for one in answers)}


def plain(model: Any, tokenizer: Any, rows: list[dict], size: int, new: int) -> Measured:
    ids, tokens = prompt_ids(tokenizer, rows, {}), 0
    for start in range(0, len(ids), size):
        batch = ids[start : start + size]
        width = max(map(len, batch))
        padded = torch.tensor([[0] * (width - len(row)) + row for row in batch], device=model.device)
        seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=model.device)
        with quiet():  # an end token that no model says is warned of
            out = model.generate(padded, attention_mask=seen, max_new_tokens=new, do_sample=False)
        tokens += out[:, width:].numel()
    return {"answers": len(ids), "tokens": tokens}
