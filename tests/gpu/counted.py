"""python -m tests.gpu.counted: what a training step keeps for its backward pass, counted on a CPU.

Bytes a token, layer and hidden unit, beside `activations` of workflow/tables/resources.yaml: the difference of a model
of one layer and one of two with 7B's proportions, weights left out. They are the same bytes on a card, where attention
keeps its inputs and output as the CPU's does. Rounded and dequantized weights are not in it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from tests.gpu.seven import SEVEN, SMALL
from transformers import AutoModelForCausalLM

from bitsafe.data.chat import Example, collate
from bitsafe.quantizers.shared.lora import LoraShape, with_adapter
from bitsafe.quantizers.shared.training import token_losses
from bitsafe.resources.coefficients import coefficients

SHAPE = replace(SMALL, hidden=512, mlp=1376, heads=4)  # 7B's are 4096 and 11008
ROWS, TOKENS = 4, 128
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    known = coefficients().quantize
    for row, kind, make in (("finetune", "float32", float32), ("qlora", "bfloat16 and an adapter", adapted)):
        found, told = a_unit(make), known[row].activations
        tokens = 16 * SEVEN.tokens * SEVEN.layers * SEVEN.hidden / 1e9  # of the shipped batch of 16
        whole = f"16 rows of {SEVEN.tokens} tokens of 7B: {found * tokens:.0f} GB against {told * tokens:.0f}"
        print(f"{row} ({kind}): {found:.0f} bytes, the table has {told:g}; {whole}")


def a_unit(make: Callable[[int], Any]) -> float:
    """Bytes a token, layer and hidden unit of the models that `make` makes of a number of layers."""
    return (kept(make(2)) - kept(make(1))) / (ROWS * TOKENS * SHAPE.hidden)


def kept(model: Any) -> int:
    """Bytes of what autograd saves in one forward pass and loss, each storage once, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}  # held, or a storage that is free again would be counted for another

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    batch = collate([Example([1] * TOKENS, [1] * TOKENS)] * ROWS, pad=0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_losses(model.train(), batch)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in saved.items() if place not in own)


def float32(layers: int) -> Any:
    """As `full` and `ste` train it."""
    return AutoModelForCausalLM.from_config(SHAPE.config(layers), dtype=torch.float32)


def adapted(layers: int) -> Any:
    """As `qlora` trains it: a frozen bfloat16 base, and an adapter by its row, which peft keeps in float32."""
    base = AutoModelForCausalLM.from_config(SHAPE.config(layers), dtype=torch.bfloat16)
    return with_adapter(base, [f"model.layers.0.{name}" for name in PROJECTIONS], LoraShape(8, 16))


if __name__ == "__main__":
    main()
