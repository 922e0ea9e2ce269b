"""A patch from beginning to end: pairs, training, export."""

import gc
import logging
import time
from typing import Any

import torch

from bitsafe.artefacts.artefact import read_layers, with_codes
from bitsafe.artefacts.layers import QuantizedLinear
from bitsafe.artefacts.load import load_dense
from bitsafe.data.conversations import prompts_only
from bitsafe.errors import UserError
from bitsafe.files import sha256_file, write_jsonl
from bitsafe.judges.keyword import refused
from bitsafe.patches.base import PatchJob, Settings
from bitsafe.patches.pairs import make_pairs
from bitsafe.patches.training.latent import attach
from bitsafe.patches.training.sequences import encode
from bitsafe.patches.training.trainer import Layers, Pair, Score, Trainer

log = logging.getLogger(__name__)


def repair(job: PatchJob, score: Score) -> dict[str, Any]:
    """Patch the cell of `job` with masks taken from `score`, write the artefact, and return facts for the manifest."""
    settings = Settings.read(job.params)
    began = time.monotonic()
    quantized = patchable_layers(job)
    model, tokenizer, rows, facts = collect(job, settings)
    layers = attach(for_training(model), quantized, settings.start, job.seed)
    facts["pair_seconds"] = time.monotonic() - began
    if rows:  # nothing to learn where both models say the same: the artefact is copied as it is
        pairs = [encode_pair(tokenizer, row, settings) for row in rows]
        facts |= train(Trainer(model, layers, pairs, settings, score, job.seed))
    codes = {name: layer.codes() for name, layer in layers.items()}
    facts |= changes(layers, codes)
    with_codes(job.artefact, job.out, codes)
    log.info("%.2f %% of the codes changed, %d mask refreshes", 100 * facts["codes_changed"], facts.get("refreshes", 0))
    return facts | {"seconds": time.monotonic() - began}


def patchable_layers(job: PatchJob) -> dict[str, QuantizedLinear]:
    """The cell's layers; a UserError where there are none, or a patch cannot move their codes one by one."""
    layers = read_layers(job.artefact)
    if not layers:
        raise UserError(
            "matrix: patches: a patch moves codes, and this method's artefact is in full precision: leave it out"
        )
    if bound := [layer for layer in layers.values() if not layer.patchable]:
        kind = type(bound[0]).__name__
        raise UserError(f"matrix: patches: no patch moves the codes of this method's layers ({kind}) yet: leave it out")
    return layers


def collect(job: PatchJob, settings: Settings) -> tuple[Any, Any, list[dict], dict[str, Any]]:
    """Both models answer every prompt; the pairs are stored beside the artefact. Returns the quantized model too."""
    prompts = prompts_only(job.prompts)
    teacher, tokenizer = load_dense(job.teacher, job.dtype)
    winners = job.generate(teacher, tokenizer, prompts, max_new_tokens=settings.max_new_tokens)
    del teacher
    gc.collect()  # two models are never held at once
    model, tokenizer = load_dense(job.artefact, job.dtype)
    losers = job.generate(model, tokenizer, prompts, max_new_tokens=settings.max_new_tokens)
    rows, counts = make_pairs(prompts, winners, losers, refused)
    file = job.out.parent / "pairs.jsonl"
    write_jsonl(file, rows)
    log.info("%d preference pairs of %d prompts: %s", len(rows), len(prompts), counts)
    facts = {"prompts": len(prompts), "pairs": counts, "pairs_file": file.name, "pairs_sha256": sha256_file(file)}
    return model, tokenizer, rows, facts


def for_training(model: Any) -> Any:
    """On a CPU in float32: where it has no bfloat16 instructions, as most have not, that is five times as fast."""
    return model.float() if next(model.parameters()).device.type == "cpu" else model


def encode_pair(tokenizer: Any, row: dict, settings: Settings) -> Pair:
    winner, loser = (
        encode(tokenizer, row["messages"], row[side], settings.max_new_tokens) for side in ("winner", "loser")
    )
    return Pair(row["id"], winner, loser)


def train(trainer: Trainer) -> dict[str, Any]:
    """Run it and tell what happened."""
    began = time.monotonic()
    trainer.model.eval()  # no dropout: the reference and the patched model differ by their codes alone
    trainer.run()
    return {
        "steps": len(trainer.losses),
        "first_loss": trainer.losses[0],
        "last_loss": trainer.losses[-1],
        "refreshes": trainer.refreshes,
        "snip_seconds": trainer.snip_seconds,
        "train_seconds": time.monotonic() - began - trainer.snip_seconds,
    }


def changes(layers: Layers, codes: dict[str, torch.Tensor]) -> dict[str, float]:
    """Shares of all quantized weights: those some mask held, and those whose code is another one now."""
    total = sum(code.numel() for code in codes.values())
    moved = sum(int((codes[name] != layer.start).sum()) for name, layer in layers.items())
    touched = sum(int(layer.touched.sum()) for layer in layers.values())
    return {"touched": touched / total, "codes_changed": moved / total}
