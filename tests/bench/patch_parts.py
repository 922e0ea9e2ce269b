"""The parts of a patch, and plain ways of doing the same: each is run in a process of its own (tests.bench.forked)."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from tests.bench.forked import Meter
from tests.bench.patch_beds import Bed, method
from torch import Tensor, nn

from bitsafe.artefacts.artefact import read_layers
from bitsafe.patches.qresafe import safe_score
from bitsafe.patches.shared.export import export
from bitsafe.patches.shared.maths import Mask, dpo_loss
from bitsafe.patches.shared.repair import train, whole
from bitsafe.patches.training.latent import attach
from bitsafe.patches.training.sequences import answer_logprobs
from bitsafe.patches.training.snip import score_weights
from bitsafe.patches.training.state import Saved
from bitsafe.patches.training.trainer import Pair, Trainer
from bitsafe.quantizers import rtn
from bitsafe.quantizers.base import QuantizeJob

OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
TIMED = ("rounding", "update")  # of a step of ours


def linears(bed: Bed) -> dict[str, nn.Linear]:
    """The dense layers in whose place the quantized ones stand."""
    return {name: bed.model.get_submodule(name) for name in bed.quantized}


def snip_streamed(meter: Meter, bed: Bed, file: Path) -> None:
    bed.model.requires_grad_(False)
    layers = linears(bed)
    with meter:
        scores = score_weights(bed.model, layers, bed.answers, bed.settings.batch_size)
    save_file(scores, file)


def snip_naive(meter: Meter, bed: Bed, file: Path) -> None:
    """Eq. 3 read off: one backward pass an example, which leaves a gradient of every weight."""
    bed.model.requires_grad_(False)
    layers = linears(bed)
    for layer in layers.values():
        layer.weight.requires_grad_(True)
    with meter:
        scores = naive_scores(bed.model, layers, bed.answers)
    save_file(scores, file)


def naive_scores(model: nn.Module, layers: dict[str, nn.Linear], answers: list) -> dict[str, Tensor]:
    scores = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    for answer in answers:
        (-answer_logprobs(model, [answer]).sum()).backward()
        with torch.no_grad():
            for name, layer in layers.items():
                scores[name] += (layer.weight * layer.weight.grad).abs()
                layer.weight.grad = None
    return {name: score.div_(len(answers)) for name, score in scores.items()}


def step_ours(meter: Meter, bed: Bed, rule: str) -> dict[str, float]:
    """A masked step, its mask at random. A first one, on one pair, is not timed: it allocates what the next reuse."""
    settings = replace(bed.settings, optimizer=rule)
    trainer = Trainer(bed.model, attach(bed.model, bed.quantized, settings), bed.pairs, settings, whole, 0)
    for layer in trainer.layers.values():
        layer.hold(Mask(torch.rand(layer.quantized.shape) < settings.tau))
    batch = list(range(settings.batch_size))
    trainer.reference = dict.fromkeys(batch, (torch.tensor(0.0), torch.tensor(0.0)))  # what it holds takes no time
    trainer._step(0, batch[:1])
    seconds = watched(trainer)
    with meter:
        for step in range(bed.timed_steps):
            trainer._step(step + 1, batch)
    return {f"{part}_seconds": seconds[part] for part in TIMED}


def watched(trainer: Trainer) -> dict[str, float]:
    """CPU seconds that rounding and updating take from now on."""
    seconds = dict.fromkeys(TIMED, 0.0)
    for layer in trainer.layers.values():
        layer.rounding.weight = timed(layer.rounding.weight, seconds, "rounding")
    trainer._update = timed(trainer._update, seconds, "update")
    return seconds


def timed(function: Callable, seconds: dict[str, float], part: str) -> Callable:
    def call(*arguments: Any) -> Any:
        began = time.process_time()
        try:
            return function(*arguments)
        finally:
            seconds[part] += time.process_time() - began

    return call


def step_plain(meter: Meter, bed: Bed, rule: str) -> None:
    """The same loss and batch; every weight of the same layers moves, dense, by torch's own optimizer."""
    bed.model.requires_grad_(False)
    weights = [layer.weight.requires_grad_(True) for layer in linears(bed).values()]
    optimizer = OPTIMIZERS[rule](weights, lr=1e-6, weight_decay=0.0)
    batch = bed.pairs[: bed.settings.batch_size]
    reference = torch.zeros(())

    def step(pairs: list[Pair]) -> None:
        winner, loser = both_logprobs(bed.model, pairs).unbind()
        dpo_loss(winner, loser, reference, reference, bed.settings.beta).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step(batch[:1])
    with meter:
        for _ in range(bed.timed_steps):
            step(batch)


def both_logprobs(model: nn.Module, pairs: list[Pair]) -> Tensor:
    """[2, pairs]: of the preferred answers and of the others, in nats."""
    found = answer_logprobs(model, [pair.winner for pair in pairs] + [pair.loser for pair in pairs])
    return found.view(2, -1)


def export_ours(meter: Meter, bed: Bed) -> None:
    """One code in a hundred is another one."""
    generator, after = torch.Generator().manual_seed(0), {}
    for name, layer in bed.quantized.items():
        moved = torch.rand(layer.codes.shape, generator=generator) < 0.01
        after[name] = replace(layer, codes=torch.where(moved, layer.codes ^ 1, layer.codes))
    with TemporaryDirectory() as folder, meter:
        export(bed.artefact, Path(folder), after)


def quantize_anew(meter: Meter, bed: Bed) -> None:
    with TemporaryDirectory() as folder, meter:
        rtn.quantize(QuantizeJob(bed.source, Path(folder), 4, method("rtn", bed.name)))


def whole_ours(meter: Meter, bed: Bed) -> dict[str, float]:
    """From the artefact and its pairs to the patched artefact, and what the patch has learned of them.

    No state is saved on the way: whether the two minutes pass depends on how busy the machine is.
    """
    with TemporaryDirectory() as name, meter:
        out = Path(name) / "artefact"
        out.mkdir()
        layers = attach(bed.model, read_layers(bed.artefact), bed.settings)
        trainer = Trainer(bed.model, layers, bed.pairs, bed.settings, safe_score, 0)
        facts = train(trainer, Saved(Path(name) / "training.safetensors", "bench", every=math.inf))
        export(bed.artefact, out, {name: layer.exported() for name, layer in layers.items()})
    return {"snip_wall_seconds": facts["snip_seconds"], **learned(trainer)}


@torch.no_grad()
def learned(trainer: Trainer) -> dict[str, float]:
    """Mean reward margin β(log π_w/π₀_w − log π_l/π₀_l) and DPO loss of the pairs that were drawn, in nats."""
    found = []
    for i, reference in trainer.reference.items():
        winner, loser = both_logprobs(trainer.model, [trainer.pairs[i]])[:, 0]
        found.append(trainer.settings.beta * ((winner - reference[0]) - (loser - reference[1])))
    margins = torch.stack(found)
    return {"margin": margins.mean().item(), "loss": -nn.functional.logsigmoid(margins).mean().item()}
