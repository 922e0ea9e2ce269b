"""The one training loop: AdamW at a constant rate on the answers of a risk set.

`full`, `ste`, `qlora` and `llm_qat` train with it, so that their cells differ by the model they train and by nothing
else; `llm_qat` distils with it too, by another loss.
"""

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from bitsafe.data.chat import IGNORED, Example, collate
from bitsafe.errors import CellError, UserError

CLIP_NORM = 1.0
PARAMS = ("steps", "lr", "batch_size")  # what a row of the method table may set

# (model, collated batch) -> (sum of the losses of the tokens that count, in nats, their number)
Losses = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, int]]


@dataclass(frozen=True)
class Settings:
    """Parameters of the loop, as a row of the method table names them."""

    steps: int
    lr: float
    batch_size: int = 16

    @classmethod
    def of(cls, params: dict[str, Any], least: int = 1) -> "Settings":
        """least: the fewest steps that make sense."""
        missing = [key for key in ("steps", "lr") if key not in params]
        if missing:
            raise UserError(f"workflow/tables/methods.yaml: params.{missing[0]}: needed for fine-tuning")
        if (steps := params["steps"]) < least:
            raise UserError(f"workflow/tables/methods.yaml: params.steps: {steps}: at least {least} is needed")
        return cls(steps, float(params["lr"]), params.get("batch_size", 16))


def batches(examples: list[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Endless batches of examples of like length; every example once an epoch, batches in random order."""
    draw = random.Random(seed)
    while True:
        order = sorted(examples, key=lambda e: (len(e.ids), draw.random()))
        epoch = [order[start : start + size] for start in range(0, len(order), size)]
        draw.shuffle(epoch)
        yield from epoch


def token_losses(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """(sum of the cross-entropy of the labelled tokens in nats, their number)."""
    device = next(model.parameters()).device
    inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
    logits = model(**inputs, use_cache=False).logits[:, :-1].float()
    labels = batch["labels"][:, 1:].to(device)
    total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total, int((labels != IGNORED).sum())


def train(
    model: nn.Module,
    parameters: Iterable[nn.Parameter],
    examples: list[Example],
    settings: Settings,
    seed: int,
    losses_of: Losses = token_losses,
) -> dict[str, Any]:
    """Minimise a mean loss, the cross-entropy of the answers, over `parameters`; everything else stays frozen.

    Returns facts for the manifest. A loss that is not finite is a CellError naming step, learning rate and batch.
    """
    weights = list(parameters)
    model.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=0.0)
    losses, source = [], batches(examples, settings.batch_size, seed)
    model.train()
    for step in tqdm(range(settings.steps), desc="fine-tuning", disable=not sys.stderr.isatty(), leave=False):
        batch = next(source)
        where = f"step {step + 1} of {settings.steps}"
        losses.append(_step(model, weights, optimizer, batch, where, losses_of))
    model.eval()
    return {"steps": settings.steps, "lr": settings.lr, "first_loss": losses[0], "final_loss": losses[-1]} | _volume(
        examples, weights
    )


def _step(
    model: nn.Module,
    weights: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    batch: list[Example],
    where: str,
    losses_of: Losses,
) -> float:
    total, count = losses_of(model, collate(batch, pad=0))
    loss = total / max(count, 1)
    if not torch.isfinite(loss):
        rate = optimizer.param_groups[0]["lr"]
        shape = f"{len(batch)} rows of at most {max(len(e.ids) for e in batch)} tokens"
        raise CellError(f"fine-tuning diverged: loss {loss.item()} at {where}, lr {rate:g}, batch of {shape}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(weights, CLIP_NORM)
    optimizer.step()
    return loss.item()


def _volume(examples: list[Example], weights: list[nn.Parameter]) -> dict[str, int]:
    answers = sum(label != IGNORED for e in examples for label in e.labels)
    return {"rows": len(examples), "answer_tokens": answers, "trained_parameters": sum(w.numel() for w in weights)}


def body_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What full fine-tuning trains: everything but the embeddings and the head, which no method here quantizes."""
    heads = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None}
    return [parameter for parameter in model.parameters() if id(parameter) not in heads]
