"""A model walked one decoder block at a time: what a layer-wise quantizer sees is what earlier blocks will give it.

Only one block and its calibration activations are ever on the GPU, so a 7B model fits one of 24 GiB. Every block is
entered with the outputs of the quantized blocks before it, as in GPTQ (Frantar et al. 2022, §4).
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bitsafe.errors import CellError, UserError

# one calibration batch on its way: hidden states [rows, tokens, hidden] and the block's other arguments
Batch = tuple[Tensor, dict[str, Any]]


@dataclass(frozen=True)
class Statistics:
    """What calibration tells of a layer's inputs X [in, tokens], both float32 on the CPU.

    gram: X Xᵀ / tokens, [in, in], half GPTQ's Hessian. peak: the largest |x| of each feature, [in].
    """

    gram: Tensor
    peak: Tensor


class Block:
    """One decoder block. `inputs` are its calibration batches; quantizers change the weights of `linears` in place."""

    def __init__(
        self, name: str, module: nn.Module, inputs: list[Batch], wanted: set[str], device: torch.device
    ) -> None:
        self.name, self.module, self.inputs, self.device = name, module, inputs, device
        found = {f"{name}.{path}": m for path, m in module.named_modules() if isinstance(m, nn.Linear)}
        self.linears: dict[str, nn.Linear] = {path: m for path, m in found.items() if path in wanted}

    def outputs(self) -> list[Tensor]:
        """What the block makes of each batch with its weights as they are now, kept on the CPU."""
        with torch.no_grad():
            return [self.forward(batch).cpu() for batch in self.inputs]

    def forward(self, batch: Batch) -> Tensor:
        """Hidden states [rows, tokens, hidden] after the block, on its device; differentiable."""
        hidden, arguments = batch
        out = self.module(hidden.to(self.device), **_moved(arguments, self.device))
        return out[0] if isinstance(out, tuple) else out

    def grams(self) -> dict[str, Tensor]:
        """The Gram matrix of each layer's inputs, float32 [in, in] on the CPU."""
        return {path: seen.gram for path, seen in self.statistics().items()}

    def statistics(self) -> dict[str, Statistics]:
        """One pass of the calibration batches: Gram matrix and largest magnitudes of each layer's inputs."""
        running = {path: _Running() for path in self.linears}
        hooks = [m.register_forward_pre_hook(running[path].add) for path, m in self.linears.items()]
        try:
            self.outputs()
        finally:
            for hook in hooks:
                hook.remove()
        found = {path: sums.statistics() for path, sums in running.items()}
        for path, seen in found.items():
            if not torch.isfinite(seen.gram).all():
                raise CellError(f"{path}: its calibration inputs are not finite: the blocks before it have broken down")
        return found


class _Running:
    """Sums over a layer's calibration inputs, as a hook before its forward pass."""

    def __init__(self) -> None:
        self.tokens, self.total, self.peak = 0, torch.zeros(()), torch.zeros(())

    def add(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].detach().float().flatten(0, -2)
        self.tokens += len(rows)
        self.total = self.total.to(rows.device) + rows.T @ rows
        self.peak = torch.maximum(self.peak.to(rows.device), rows.abs().amax(0))

    def statistics(self) -> Statistics:
        return Statistics((self.total / self.tokens).cpu(), self.peak.cpu())


def walk(model: Any, batches: list[Tensor], wanted: set[str], label: str) -> Iterator[Block]:
    """Every decoder block in turn, on the GPU if there is one; on the next turn its outputs enter the next block.

    batches: token ids [rows, tokens] without padding. wanted: the layers to quantize, by module path.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prefix, blocks = decoder_blocks(model)
    if len(kinds := set(getattr(model.config, "layer_types", None) or ["all"])) > 1:
        raise UserError(
            f"{type(model).__name__}: blocks of several kinds ({', '.join(sorted(kinds))}) with masks of their own: "
            "this method walks over blocks of one kind: use gptq, awq, rtn or a bitsandbytes method"
        )
    states = _entering(model, blocks[0], batches)
    for index, module in enumerate(
        tqdm(blocks, desc=label, unit="block", disable=not sys.stderr.isatty(), leave=False)
    ):
        block = Block(f"{prefix}.{index}", module.to(device), states, wanted, device)
        yield block
        states = [(hidden, arguments) for hidden, (_, arguments) in zip(block.outputs(), states)]
        module.cpu()


def decoder_blocks(model: Any) -> tuple[str, nn.ModuleList]:
    """(module path, blocks) of a decoder-only model of transformers."""
    for path, module in model.named_modules():
        if path.rpartition(".")[2] == "layers" and isinstance(module, nn.ModuleList):
            return path, module
    raise UserError(f"{type(model).__name__}: no list of decoder blocks named `layers` in it")


class _Caught(Exception):
    """The first block has been reached; nothing after it need run."""


def _entering(model: Any, first: nn.Module, batches: list[Tensor]) -> list[Batch]:
    """What enters the first block for each batch."""
    caught: list[Batch] = []

    def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        caught.append((args[0].detach(), {key: value for key, value in kwargs.items() if key != "past_key_values"}))
        raise _Caught

    handle = first.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        for ids in batches:
            try:
                with torch.no_grad():
                    model(input_ids=ids, use_cache=False)
            except _Caught:
                continue
    finally:
        handle.remove()
    return caught


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_moved(part, device) for part in value)
    return value
