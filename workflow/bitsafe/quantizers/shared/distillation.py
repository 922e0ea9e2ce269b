"""Distillation: the loss by which a model learns what another says of every next token."""

from typing import Any

import torch
from torch import Tensor, nn

from bitsafe.quantizers.shared.training import Losses


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """−Σ_c p_c log q_c of logits [..., vocabulary], in nats: LLM-QAT's loss (Liu et al. 2023, §2.2), one a token."""
    return -(teacher.float().softmax(-1) * student.float().log_softmax(-1)).sum(-1)


def distillation(teacher: Any) -> Losses:
    """The loss of every token, question and answer alike, against what `teacher` says on the student's device."""

    def losses(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        device = next(model.parameters()).device
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        said = inputs["attention_mask"].bool()
        with torch.no_grad():
            target = teacher(**inputs, use_cache=False).logits[said]
        logits = model(**inputs, use_cache=False).logits[said]
        return soft_cross_entropy(logits, target).sum(), len(logits)

    return losses
