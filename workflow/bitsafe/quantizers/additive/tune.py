"""A quantized block trained to give what the block gave before (Egiazarian et al. 2024, §3.3, phase 3)."""

import random

import torch
import torch.nn.functional as F
from torch import Tensor

from bitsafe.quantizers.additive.fit import BETAS
from bitsafe.quantizers.shared.blocks import Block


def tune_block(block: Block, targets: list[Tensor], steps: int, lr: float, seed: int) -> tuple[float, float]:
    """Adam over every parameter of a block of additive layers: codebooks, scales, norms, biases; codes stay.

    targets: what the full-precision block made of each of block.inputs, [rows, tokens, hidden]. One batch a step, in
    random order. Returns the relative squared error of the block's output before and after; a block that came out no
    better is put back.
    """
    before = block_error(block, targets)
    parameters = [part.requires_grad_(True) for part in block.module.parameters()]
    kept = [part.detach().clone() for part in parameters]
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=BETAS)
    for index in _order(len(targets), steps, seed):
        target = targets[index].to(block.device)
        loss = F.mse_loss(block.forward(block.inputs[index]), target) / target.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    after = block_error(block, targets)
    if not after < before:
        with torch.no_grad():
            for part, old in zip(parameters, kept):
                part.copy_(old)
        after = before
    block.module.requires_grad_(False)
    return before, after


@torch.no_grad()
def block_error(block: Block, targets: list[Tensor]) -> float:
    """‖block(X) − Y‖² / ‖Y‖² over all calibration batches."""
    pairs = [(block.forward(batch).cpu(), target) for batch, target in zip(block.inputs, targets)]
    wrong = sum(float((found - target).square().sum()) for found, target in pairs)
    return wrong / sum(float(target.square().sum()) for target in targets)


def _order(count: int, steps: int, seed: int) -> list[int]:
    """Indices of `steps` batches: epochs, each in an order of its own."""
    draw, order = random.Random(seed), []
    while len(order) < steps:
        order += draw.sample(range(count), count)
    return order[:steps]
