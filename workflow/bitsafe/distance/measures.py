"""KL divergence, top-1 agreement and negative log-likelihood of a model on a fixed text, token by token."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

VERSION = 1  # bump when a number of distance.csv would change

LEAST = 1e-12  # probability; below it a rest is rounding


class Text(NamedTuple):
    """A prompt and an answer to it as tokens; `ids[start:]` is the answer."""

    name: str  # id of the prompt's row
    cluster: str
    ids: list[int]
    start: int


class Known(NamedTuple):
    """What is kept of full precision on the n answer tokens of a text."""

    tokens: Tensor  # its k likeliest next tokens at each place, likeliest first [n, k]
    log_p: Tensor  # natural log of their probabilities [n, k], float32


@torch.inference_mode()
def log_probabilities(model: Any, text: Text) -> Tensor:
    """log p of every token at each place of the answer, in nats: [n, vocabulary], float32.

    One text at a time and without padding, so that no batch moves a number.
    """
    ids = torch.tensor([text.ids], device=model.device)
    out = model(ids, logits_to_keep=len(text.ids) - text.start + 1, use_cache=False)
    return out.logits[0, :-1].float().log_softmax(-1)


def known_of(log_p: Tensor, top: int) -> Known:
    """The `top` likeliest tokens at each place, fewer if the vocabulary is smaller."""
    values, tokens = log_p.topk(min(top, log_p.shape[1]), dim=-1)
    return Known(tokens, values)


def kl_from(known: Known, log_q: Tensor) -> Tensor:
    """KL(full ‖ cell) in nats at each place [n], with all tokens beyond `known` taken as one.

    log_q: [n, vocabulary]. Merging outcomes can only lower a KL divergence (data processing), so this is a lower bound;
    it is the divergence itself where `known` holds the whole vocabulary.
    """
    log_p, own = known.log_p.double(), log_q.gather(1, known.tokens).double()
    kl = (log_p.exp() * (log_p - own)).sum(-1)
    if known.tokens.shape[1] == log_q.shape[1]:
        return kl
    rest_p, rest_q = (1 - part.exp().sum(-1) for part in (log_p, own))
    return kl + torch.where(rest_p > LEAST, rest_p * (rest_p / rest_q.clamp(min=LEAST)).log(), 0.0)


def measured(known: Known, log_q: Tensor, text: Text) -> dict[str, Any]:
    """Sums over the answer's tokens: kl (nats), agree (same likeliest token), nll (nats), and `beyond`, the probability
    that full precision gives to tokens that are not known one by one."""
    known = Known(*(tensor.to(log_q.device) for tensor in known))  # the last of several GPUs, perhaps
    answer = torch.tensor(text.ids[text.start :], device=log_q.device)
    return {
        "id": text.name,
        "cluster": text.cluster,
        "n_tokens": len(answer),
        "kl": float(kl_from(known, log_q).sum()),
        "agree": int((log_q.argmax(-1) == known.tokens[:, 0]).sum()),
        "nll": -float(log_q.gather(1, answer[:, None]).double().sum()),
        "beyond": float((1 - known.log_p.double().exp().sum(-1)).clamp(min=0).sum()),
    }
