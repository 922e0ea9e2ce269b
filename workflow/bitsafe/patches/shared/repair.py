"""A patch from beginning to end: pairs, training, export."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from bitsafe.artefacts.artefact import format_of, read_layers, takes_grids
from bitsafe.artefacts.kinds.outliers import OutlierLinear
from bitsafe.artefacts.layers import Layer, QuantizedLinear
from bitsafe.errors import CellError, UserError
from bitsafe.files import sha256_folder, sha256_json
from bitsafe.generate.device import PATCHED, arithmetic, place
from bitsafe.patches.base import PatchJob, Settings
from bitsafe.patches.shared.collect import Collected, collect
from bitsafe.patches.shared.cost import Flops, Watch
from bitsafe.patches.shared.export import Quantized, changes, export, export_error, leave, unmasked_changes
from bitsafe.patches.shared.rates import agreement, best_rate
from bitsafe.patches.training.coding import CODINGS
from bitsafe.patches.training.latent import attach
from bitsafe.patches.training.sequences import Sequence, encode
from bitsafe.patches.training.state import Saved
from bitsafe.patches.training.trainer import Examples, Layers, Pair, Score, Trainer

log = logging.getLogger(__name__)
STATE = "training"  # <this>.<rate>.safetensors, while a patch is being trained


def repair(job: PatchJob, score: Score) -> dict[str, Any]:
    """Patch the cell of `job` with masks taken from `score`, write the artefact, and return facts for the manifest."""
    settings = Settings.read(job.params)
    watch = Watch()
    quantized = patchable_layers(job, settings.quant_mode)
    found = collect(job, settings)
    found.model = for_training(found.model)
    facts = found.facts | {"pair_seconds": watch.facts()["seconds"], "flops": 0.0}
    if not found.pairs:  # both models say the same, or no pair is of a class that is asked for
        log.info("no pair of %s to learn from: the artefact is copied as it is", ", ".join(settings.pair_classes))
    patched, learned = learn(job, settings, found, quantized, score) if found.pairs else (quantized, {})
    facts |= learned | written(job, settings, quantized, patched, learned)
    for file in job.out.parent.glob(f"{STATE}.*.safetensors"):  # of other rates and settings, too
        file.unlink()
    return facts | watch.facts()


def written(
    job: PatchJob, settings: Settings, before: Quantized, after: Quantized, learned: dict[str, Any]
) -> dict[str, Any]:
    """Write the artefact; where both models say the same, or no weight might move, it is copied to the byte."""
    began = time.monotonic()
    if not learned.get("touched"):
        leave(job.artefact, job.out)
        after = before
    else:
        export(job.artefact, job.out, after, settings.quant_mode)
    facts = changes(before, after)
    if facts:
        log.info("%.2f %% of the codes changed in %d steps", 100 * facts["codes_changed"], learned.get("steps", 0))
        log.info("%d mask refreshes", learned.get("refreshes", 0))
    return facts | {"export_seconds": time.monotonic() - began}


def whole(_model: nn.Module, _layers: Layers, _examples: Examples) -> None:
    """The score of a patch that may move every weight."""


def learn(
    job: PatchJob, settings: Settings, found: Collected, quantized: Quantized, score: Score
) -> tuple[Quantized, dict[str, Any]]:
    """Train at the learning rate, or at each of several; the layers to export and what happened.

    `flops` are those of training and scoring at all rates; the answers that make pairs and choose a rate are not in it.
    """
    pairs = [encode_pair(found.tokenizer, row, settings) for row in found.pairs]
    utility = [encode_answer(found.tokenizer, row, settings) for row in job.utility]
    counted: list[Flops] = []
    several = isinstance(settings.lr, list)
    on = [found.facts["pairs_sha256"], sha256_folder(job.artefact), sha256_json(job.utility), arithmetic()]

    def fit(rate: float) -> tuple[Quantized, dict[str, Any]]:
        layers = attach(found.model, quantized, settings, job.seed)
        saved = Saved(job.out.parent / f"{STATE}.{rate}.safetensors", sha256_json([job.params, rate, job.seed, *on]))
        trainer = Trainer(found.model, layers, pairs, replace(settings, lr=rate), score, job.seed, utility)
        counted.append(trainer.flops)
        facts = train(trainer, saved)
        if several:  # killed at a later rate, this one need not be trained again
            saved.save(trainer)
        total = sum(layer.touched.numel() for layer in layers.values())
        facts["touched"] = sum(int(layer.touched.sum()) for layer in layers.values()) / total
        made = {name: layer.exported() if settings.exported else layer.unexported() for name, layer in layers.items()}
        return made, facts | unmasked_changes(layers, made) | {"export_error": finite(export_error(layers, made), rate)}

    if several:
        patched, facts = best_rate(settings.lr, fit, lambda: agreement(job, found, settings))
    else:
        patched, facts = fit(settings.lr)
    return patched, facts | {"flops": sum(each.total for each in counted)}


def finite(error: float, rate: float) -> float:
    """The error of an export; a CellError where weights have become no numbers although every loss was one."""
    if not math.isfinite(error):
        raise CellError(f"patch: the trained weights are not finite (lr {rate}): take a lower rate")
    return error


def patchable_layers(job: PatchJob, quant_mode: str = "requant_grid") -> Quantized:
    """The cell's layers; a UserError where there are none, or this mode has nothing to move in them."""
    layers = read_layers(job.artefact)
    if not layers:
        raise UserError(
            "matrix: patches: a patch moves codes, and this method's artefact is in full precision: leave it out"
        )
    movable = MOVABLE.get(quant_mode, Layer)
    if bound := [layer for layer in layers.values() if not isinstance(layer, movable)]:
        kind = type(bound[0]).__name__
        raise UserError(
            f"workflow/tables/patches.yaml: quant_mode: {quant_mode} cannot move the layers of this method ({kind}): "
            "leave the patch out of the block, or take a row with quant_mode: adapter"
        )
    if quant_mode == "requant_fp" and not takes_grids(job.artefact):
        raise UserError(
            f"workflow/tables/patches.yaml: quant_mode: requant_fp: new scales cannot be written in the "
            f"{format_of(job.artefact)} format: leave the patch out of the block, or take a row with requant_grid"
        )
    return layers


MOVABLE = {  # kinds of layers, by quant_mode; adapter: all
    "requant_grid": tuple(CODINGS),
    "requant_fp": QuantizedLinear,
    "delta_quant": (QuantizedLinear, OutlierLinear),
}


def for_training(model: Any) -> Any:
    """On the GPU; without one in float32: where a CPU has no bfloat16 instructions, that is five times as fast."""
    return place(model, PATCHED) if torch.cuda.is_available() else model.float()


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """Let every block compute its activations again for the backward pass instead of keeping them (Chen et al. 2016).

    Blocks do so in training mode only: they, and nothing in them, are put there, so that there is still no dropout.
    """
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for block in blocks:
        block.training = True
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()
        for block in blocks:
            block.training = False


def encode_pair(tokenizer: Any, row: dict, settings: Settings) -> Pair:
    winner, loser = (
        encode(tokenizer, row["messages"], row[side], settings.max_new_tokens) for side in ("winner", "loser")
    )
    return Pair(row["id"], winner, loser)


def encode_answer(tokenizer: Any, row: dict, settings: Settings) -> Sequence:
    """A conversation's last answer after what came before it."""
    *before, last = row["messages"]
    return encode(tokenizer, before, last["content"], settings.max_new_tokens)


def train(trainer: Trainer, saved: Saved) -> dict[str, Any]:
    """Run it, after what an interrupted run has saved, and tell what happened."""
    trainer.model.eval()  # no dropout: the reference and the patched model differ by their codes alone
    with recomputing(trainer.model) if trainer.settings.gradient_checkpointing else nullcontext():
        trainer.run(saved)
    return {
        "steps": len(trainer.losses),
        "resumed_after": trainer.resumed_after,
        "first_loss": trainer.losses[0],
        "last_loss": trainer.losses[-1],
        "refreshes": trainer.refreshes,
        "snip_seconds": trainer.snip_seconds,
        "train_seconds": trainer.train_seconds,
    }
