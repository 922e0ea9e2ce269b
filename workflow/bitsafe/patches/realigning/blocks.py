"""A walk over the quantized cell's decoder blocks that realigns one after the other."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.layers import Layer
from bitsafe.errors import CellError
from bitsafe.patches.realigning.maths import Separator, realign_loss
from bitsafe.patches.realigning.moving import Moving, moving
from bitsafe.patches.realigning.prompts import Batch
from bitsafe.patches.realigning.settings import RealignSettings
from bitsafe.patches.training.rules import AdamStep
from bitsafe.quantizers.shared.blocks import Block, decoder_blocks, walk


@dataclass(frozen=True)
class Aim:
    """Where the activations of refused prompts shall go: across `separators`, one a block, or, where there is a
    `teacher`, to what that model says after each block."""

    separators: list[Separator]
    teacher: Any | None = None

    def blocks(self, batches: list[Batch]) -> Iterable[tuple[Separator | None, list[Tensor | None]]]:
        """Block by block, the separator of its loss and the teacher's outputs for each batch; None for what is not."""
        if self.teacher is None:
            return ((separator, [None] * len(batches)) for separator in self.separators)
        walked = walk(self.teacher, [batch.ids for batch in batches], set(), "full precision")
        return zip(repeat(None), (block.outputs() for block in walked), strict=False)


def realign(
    model: Any,
    layers: dict[str, Layer],
    batches: list[Batch],
    aim: Aim,
    settings: RealignSettings,
    rate: float,
    seed: int,
) -> tuple[dict[str, Layer], dict[str, Any]]:
    """Move every block in turn, leaving `model` as it is exported; the layers that moved, and losses by block.

    Each block is entered with what the realigned blocks before it say. Its target on answered prompts is what the cell
    said here before the patch, which is carried along beside.
    """
    model.requires_grad_(False)
    generator, half = torch.Generator().manual_seed(seed), len(decoder_blocks(model)[1]) // 2
    after, losses, before = {}, [], None
    blocks = walk(model, [batch.ids for batch in batches], set(layers), "realign")
    for index, (block, (separator, taught)) in enumerate(zip(blocks, aim.blocks(batches), strict=True)):
        before = block.inputs if before is None else before
        with torch.no_grad():
            said = [block.forward(state).cpu() for state in before]
        before = [(out, arguments) for out, (_, arguments) in zip(said, before, strict=True)]
        goals = [Goal(*parts, separator) for parts in zip(batches, said, taught, strict=True)]
        epochs = settings.epochs_low if index <= half else settings.epochs_high
        with moving(block.linears, layers, settings, generator) as parts:
            losses.append(train(block, parts, goals, epochs, rate, random.Random(f"{seed} {index}")))
            after |= {name: part.exported() for name, part in parts.items()}
    return after, {"first_losses": [first for first, _ in losses], "last_losses": [last for _, last in losses]}


@dataclass(frozen=True)
class Goal:
    """What one block shall say of one batch. said: the cell's own outputs before the patch [prompts, tokens, hidden];
    taught: the teacher's, or None."""

    batch: Batch
    said: Tensor
    taught: Tensor | None
    separator: Separator | None

    def loss(self, hidden: Tensor) -> Tensor:
        """Of the block's outputs now, on their device."""
        refused, weights = (part.to(hidden.device) for part in (self.batch.refused, self.batch.weights))
        target = self.said
        if self.taught is not None:
            target = torch.where(self.batch.refused[:, None, None], self.taught, self.said)
        return realign_loss(hidden, target.to(hidden.device), refused, weights, self.separator)


def train(
    block: Block, parts: dict[str, Moving], goals: list[Goal], epochs: int, rate: float, order: random.Random
) -> tuple[float, float]:
    """AdamW without decay on one block; the mean loss of its first and of its last pass over the prompts."""
    rule, means, count = AdamStep(), [], sum(len(goal.batch.ids) for goal in goals)
    for epoch in range(epochs):
        total = 0.0
        for k in order.sample(range(len(goals)), len(goals)):
            for part in parts.values():
                part.position.requires_grad_(True)
            loss = goals[k].loss(block.forward(block.inputs[k]))
            if not torch.isfinite(loss):
                raise CellError(f"patch: loss is {loss.item()} in {block.name}, pass {epoch + 1} (lr {rate})")
            loss.backward()
            _step(parts, rule, rate)
            total += loss.item() * len(goals[k].batch.ids)
        means.append(total / count)
    return (means[0], means[-1]) if means else (0.0, 0.0)


@torch.no_grad()
def _step(parts: dict[str, Moving], rule: AdamStep, rate: float) -> None:
    for name, part in parts.items():
        for side, parameter in part.position.trained.items():
            parameter -= rate * part.units * rule.direction(f"{name}.{side}", parameter.grad)
            parameter.grad = None
