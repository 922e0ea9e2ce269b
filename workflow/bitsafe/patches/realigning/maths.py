"""The maths of Q-realign as pure functions on tensors (Tan et al. 2026, arXiv 2601.08089, and its released code)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Separator:
    """A line between refused (positive) and answered prompts in one block's outputs. weight: [hidden]; bias: []."""

    weight: Tensor
    bias: Tensor

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] to float32 [...], on the device of `hidden`."""
        return hidden.float() @ self.weight.to(hidden.device) + self.bias.to(hidden.device)

    def accuracy(self, hidden: Tensor, refused: Tensor) -> float:
        """The share of rows [rows, hidden] on their own side."""
        return float(((self.logits(hidden) > 0) == refused).float().mean())


def fit_separator(features: Tensor, refused: Tensor, l1: float = 1.0, iterations: int = 5000) -> Separator:
    """Sparse logistic regression: the minimum of Σ_n log(1 + exp(−y_n (w·x_n + b))) + l1 ‖w‖₁, y = ±1.

    features: [rows, hidden]; refused: bool [rows]. This is the objective of scikit-learn's LogisticRegression(penalty=
    "l1", C=1/l1), which the released code calls, but for the bias, on which liblinear lays the penalty too. The solver
    is FISTA (Beck & Teboulle 2009, §4) with restarts (O'Donoghue & Candès 2015, §3), in float64.

    It solves for the weights of centred features in units of their spread, which is the same objective: the bias takes
    the means up, and each weight's penalty is divided by its spread. Otherwise one massive activation (Sun et al. 2024)
    would shorten every other weight's steps.
    """
    x = features.double()
    mean, spread = x.mean(0), x.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    ones = torch.ones(len(x), 1, dtype=torch.float64, device=x.device)
    x = torch.cat([(x - mean) / spread, ones], 1)  # b is the weight of a feature that is always 1, and bears no penalty
    signed = torch.where(refused, 1.0, -1.0).double().unsqueeze(1) * x
    penalty = torch.cat([l1 / spread, torch.zeros_like(spread[:1])])
    found = _fista(signed, penalty, iterations)
    weight = found[:-1] / spread
    return Separator(weight.float(), (found[-1] - weight @ mean).float())


def _fista(signed: Tensor, penalty: Tensor, iterations: int, tolerance: float = 1e-9) -> Tensor:
    """The minimum of Σ log(1 + exp(−signed·w)) + Σ penalty |w|. signed: [rows, weights]; penalty: [weights]."""
    step = 4 / torch.linalg.matrix_norm(signed, 2) ** 2
    now, ahead, momentum = torch.zeros_like(penalty), torch.zeros_like(penalty), 1.0
    for _ in range(iterations):
        moved = ahead + step * (torch.sigmoid(-signed @ ahead) @ signed)
        following = moved.sign() * (moved.abs() - step * penalty).clamp(min=0)
        change = following - now
        if (ahead - following) @ change > 0:  # the momentum points uphill
            momentum = 1.0
        grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = following + (momentum - 1) / grown * change
        now, momentum = following, grown
        if change.abs().max() <= tolerance * now.abs().max():
            break
    return now


def realign_loss(
    hidden: Tensor, target: Tensor, refused: Tensor, weights: Tensor, separator: Separator | None
) -> Tensor:
    """Mean over prompts of weight × log(1 + exp(−(w·h + b))) where refused, of weight × mean (hidden − target)² else.

    hidden, target: a block's outputs [prompts, tokens, hidden]; h is the last token's. refused: bool [prompts];
    weights: [prompts]. The two terms are those of the released code (quantize/omniquant.py, `compute_loss`). Without a
    separator the second stands for every prompt.
    """
    reconstruction = (hidden.float() - target.float()).square().mean((1, 2))
    if separator is None:
        return (weights * reconstruction).mean()
    safety = F.softplus(-separator.logits(hidden[:, -1]))
    return (weights * torch.where(refused, safety, reconstruction)).mean()


def class_weights(refused: Tensor, share: float) -> Tensor:
    """Weights [prompts], of mean 1, under which the refused prompts make up `share` of a mean over all.

    refused: bool [prompts], of both kinds.
    """
    count = refused.float().mean()
    return torch.where(refused, share / count, (1 - share) / (1 - count))
