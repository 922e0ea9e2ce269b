"""patch: seconds and memory of a patch, part by part and whole, on SmolLM2-135M and on the embedded toy.

`python -m tests.bench patch` (make bench-extra runs it too). Each figure is the median of REPEATS processes forked off
one that has loaded the model (tests.bench.forked); the two sides take turns, so that a busy machine hits both. Ratios
are of CPU seconds at one thread, or of megabytes above what the loaded model holds.

The rows: streamed SNIP against one backward pass an example; a masked DPO step against a plain optimizer's on dense
weights, and where its seconds go; writing the patched artefact against making the artefact; a whole patch, its pairs
given, against trl's DPOTrainer with a peft LoRA; `qresafe` against `dpo` in seconds to one ASR (tests.bench.equal_asr).
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from tests.bench import equal_asr, patch_beds, patch_parts
from tests.bench.forked import measured
from tests.bench.patch_beds import Bed
from torch import Tensor

from bitsafe.matrix.environments import interpreter
from bitsafe.patches.shared.maths import critical_mask
from bitsafe.patches.training.trainer import draw

REPEATS = 3
RIVAL = Path(__file__).with_name("rivals") / "trl_dpo.py"
RANK = 16
# that of trl's own script for DPO with LoRA, and two above it: a low rate must not pass for a weak library
RATES = (5e-6, 1e-4, 1e-3)
Work = Callable[[], dict[str, Any]]


def run() -> Iterator[dict]:
    """The short measurements first, SmolLM2's whole patch last."""
    torch.set_num_threads(1)  # a fork of a process with a team of threads would wait for them for ever
    with TemporaryDirectory() as name:
        folder = Path(name)
        for make in (patch_beds.toy, patch_beds.smollm2):
            yield from parts(make(folder), folder)
        yield from whole(patch_beds.toy(folder), folder)
        yield from equal_asr.run(folder)
        yield from whole(patch_beds.smollm2(folder), folder)


def parts(bed: Bed, folder: Path) -> Iterator[dict]:
    yield from steps(bed)
    yield from snip(bed, folder)
    yield from export(bed)


def snip(bed: Bed, folder: Path) -> list[dict]:
    """Both passes leave their scores in a file, and the last of each are compared."""
    files = [folder / "streamed.safetensors", folder / "naive.safetensors"]
    mine, theirs = in_turns(
        partial(measured, patch_parts.snip_streamed, bed, files[0]),
        partial(measured, patch_parts.snip_naive, bed, files[1]),
    )
    facts = {"answers": len(bed.answers)} | difference(*(load_file(file) for file in files), bed.settings.tau)
    return against("SNIP pass", bed, mine, theirs, "one backward pass an example, all weight gradients", **facts)


def difference(ours: dict[str, Tensor], naive: dict[str, Tensor], tau: float) -> dict[str, float]:
    """How far the scores lie apart: the largest difference relative to its layer's largest score, and the share of the
    mask's weights that both choose."""
    apart = max(float((ours[name] - score).abs().max() / score.max()) for name, score in naive.items())
    masks = [critical_mask(scores, tau) for scores in (ours, naive)]
    both = sum(int((masks[0][name] & masks[1][name]).sum()) for name in naive)
    return {"scores_apart": apart, "mask_shared": both / sum(int(mask.sum()) for mask in masks[1].values())}


def steps(bed: Bed) -> Iterator[dict]:
    for rule, plain in (("sgd", "torch.optim.SGD"), ("adamw", "torch.optim.AdamW")):
        mine, theirs = in_turns(
            partial(measured, patch_parts.step_ours, bed, rule), partial(measured, patch_parts.step_plain, bed, rule)
        )
        yield from against(f"DPO step {rule}", bed, mine, theirs, f"{plain}, dense weights", steps=bed.timed_steps)
        for part in patch_parts.TIMED:
            row = {"name": "patch", "method": f"DPO step {rule}: {part}", "model": bed.name, "unit": "CPU s"}
            row |= middle(mine, f"{part}_seconds", mine, "cpu_seconds")
            yield row | {"peer_name": "the whole step", "n": len(mine)}


def export(bed: Bed) -> list[dict]:
    mine, theirs = in_turns(
        partial(measured, patch_parts.export_ours, bed), partial(measured, patch_parts.quantize_anew, bed)
    )
    return against("export", bed, mine, theirs, "rtn of the same checkpoint, written")


def whole(bed: Bed, folder: Path) -> list[dict]:
    """trl trains on the dequantized weights, so that both start from one model; its rates take turns too."""
    place, rates = folder / f"{bed.name}.trl", list(RATES)
    dense = place / "dense"
    bed.model.save_pretrained(dense)
    bed.tokenizer.save_pretrained(dense)
    mine, theirs = in_turns(
        partial(measured, patch_parts.whole_ours, bed), lambda: trl(bed, dense, place, rates.pop(0)), count=len(RATES)
    )
    learned = [{key: found[key] for key in ("learning_rate", "margin", "loss")} for found in theirs]
    facts = {"steps": bed.settings.steps, "batch_size": bed.settings.batch_size, "rank": RANK}
    facts |= {key: of(mine, key) for key in ("margin", "loss", "snip_wall_seconds")} | {"peer_learned": learned}
    facts |= {"peer_versions": theirs[0]["library"], "peer_settings": theirs[0]["chosen"]}
    return against("whole patch qresafe", bed, mine, theirs, f"trl DPOTrainer, peft LoRA r {RANK}", **facts)


def trl(bed: Bed, dense: Path, place: Path, rate: float) -> dict[str, Any]:
    """Its facts, in a process of its own environment, on the batches that our trainer draws."""
    job = {"model": str(dense), "rows": drawn_rows(bed), "batch_size": bed.settings.batch_size, "rank": RANK}
    job |= {"learning_rate": rate, "beta": bed.settings.beta, "out": str(place / "adapter")}
    job |= {"facts": str(place / "facts.json")}
    (place / "job.json").write_text(json.dumps(job))
    command = [interpreter("bench"), "-I", RIVAL, place / "job.json"]
    ended = subprocess.run(command, cwd=place, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{RIVAL.name} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    return json.loads((place / "facts.json").read_text()) | {"learning_rate": rate}


def drawn_rows(bed: Bed) -> list[dict]:
    """Token ids of the pairs in the order in which our trainer takes them."""
    how = bed.settings
    pairs = [bed.pairs[i] for batch in draw(len(bed.pairs), how.batch_size, how.steps, 0) for i in batch]
    return [
        {"prompt_ids": p.winner.prompt, "chosen_ids": p.winner.answer, "rejected_ids": p.loser.answer} for p in pairs
    ]


def in_turns(ours: Work, theirs: Work, count: int = REPEATS) -> tuple[list[dict], list[dict]]:
    """What each says, measured alternately."""
    found = [(ours(), theirs()) for _ in range(count)]
    return [mine for mine, _ in found], [peer for _, peer in found]


def against(what: str, bed: Bed, mine: list[dict], theirs: list[dict], peer: str, **facts: Any) -> list[dict]:
    """A row of seconds and a row of memory."""
    row = {"name": "patch", "method": what, "model": bed.name, "peer_name": peer, "n": len(mine)}
    seconds = {"unit": "CPU s", **middle(mine, "cpu_seconds", theirs, "cpu_seconds")}
    seconds |= {"wall_seconds": of(mine, "wall_seconds"), "peer_wall_seconds": of(theirs, "wall_seconds")}
    memory = {"unit": "MB above the loaded model", **middle(mine, "above_mb", theirs, "above_mb")}
    for key in ("loaded_mb", "peak_mb"):
        memory |= {key: of(mine, key), f"peer_{key}": of(theirs, key)}
    return [row | seconds | facts, row | {"method": f"{what}: peak memory"} | memory]


def middle(mine: list[dict], key: str, theirs: list[dict], peer_key: str) -> dict[str, Any]:
    """Medians, their ratio, and the range of the ratio over the turns."""
    ratios = [a[key] / b[peer_key] for a, b in zip(mine, theirs, strict=True)]
    ours, peer = of(mine, key), of(theirs, peer_key)
    return {"ours": ours, "peer": peer, "ratio": ours / peer, "spread": [min(ratios), max(ratios)]}


def of(found: list[dict], key: str) -> float:
    return median(facts[key] for facts in found)
