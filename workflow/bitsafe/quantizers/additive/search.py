"""Beam search over the codes (Egiazarian et al. 2024, §3.2, phase 1, eq. 5-8), all outputs of a layer at once.

With E = W − Ŵ and the gram G = X Xᵀ / tokens the objective of one output is e G eᵀ. Changing the codeword of one group
from c to c' changes it by terms in (e G) at that group and in the group's own block of G only, so all 2^B values of a
code are priced with one small product. A sweep visits every code once, from one start; the candidates of a step are
then all distinct, the present codes stay among them, and a beam of all combinations is an exhaustive search.
"""

import torch
from torch import Tensor

from bitsafe.artefacts.additive import decode

CHUNK = {"cpu": 2**24, "cuda": 2**27}  # prices held at once


def beam_search(
    weight: Tensor, gram: Tensor, codes: Tensor, codebooks: Tensor, scales: Tensor, beam: int
) -> tuple[Tensor, Tensor]:
    """One sweep: (codes int64 [out, in/g, K], their objective [out]), for no output worse than what it came with.

    weight: [out, in]. gram: [in, in]. codes: [out, in/g, K]. codebooks: [K, 2^B, g]. scales: [out].
    """
    prices = beam * max(codebooks.shape[1], weight.shape[1])
    rows = max(1, CHUNK[weight.device.type] // prices)
    parts = zip(weight.split(rows), codes.split(rows), scales.split(rows))
    found = [_sweep(part, gram, old, codebooks, scale, beam) for part, old, scale in parts]
    return torch.cat([new for new, _ in found]), torch.cat([errors for _, errors in found])


def output_errors(weight: Tensor, decoded: Tensor, gram: Tensor) -> Tensor:
    """(w − ŵ) G (w − ŵ)ᵀ of each output: [out]."""
    rest = weight - decoded
    return (rest @ gram * rest).sum(1)


def _sweep(
    weight: Tensor, gram: Tensor, old: Tensor, codebooks: Tensor, scales: Tensor, beam: int
) -> tuple[Tensor, Tensor]:
    group, rest = codebooks.shape[2], (weight - decode(old, codebooks, scales)).unsqueeze(1)  # [out, beams, in]
    codes, before = old.long().unsqueeze(1), output_errors(weight, decode(old, codebooks, scales), gram)
    errors = before.unsqueeze(1)  # [out, beams]
    for index in range(old.shape[1]):
        columns = slice(index * group, (index + 1) * group)
        found = _Group(codebooks, scales, gram[columns, columns], rest @ gram[:, columns], codes[:, :, index], errors)
        for book in range(len(codebooks)):
            found.choose(book, beam)
        rest, codes, errors = found.follow(rest), found.follow(codes), found.errors
        rest[:, :, columns] += found.moved
        codes[:, :, index] = found.codes
    best = codes[:, 0]
    # prices are kept up by small changes and drift: what counts is the objective itself
    after = output_errors(weight, decode(best, codebooks, scales), gram)
    better = after < before
    return torch.where(better[:, None, None], best, old), torch.where(better, after, before)


class _Group:
    """The beams of every output while the codes of one group are chosen."""

    def __init__(
        self, codebooks: Tensor, scales: Tensor, gram: Tensor, slope: Tensor, codes: Tensor, errors: Tensor
    ) -> None:
        """gram: the group's block [g, g]. slope: e G at the group [out, beams, g]. codes: [out, beams, K]."""
        self.codebooks, self.gram, self.slope, self.codes, self.errors = codebooks, gram, slope, codes, errors
        self.scales = scales.view(-1, 1, 1)
        self.moved = torch.zeros_like(slope)  # what has been added to e at the group
        self.origin = torch.arange(errors.shape[1], device=errors.device).expand_as(errors)  # beams it came from
        self.own = ((codebooks @ gram) * codebooks).sum(-1)  # c G cᵀ of every codeword: [K, 2^B]

    def choose(self, book: int, beam: int) -> None:
        """Keep the `beam` best of all values of one code, over all beams."""
        words = self.codebooks[book]
        out = words[self.codes[..., book]] * self.scales  # with that codeword gone e grows by it
        pull = out @ self.gram
        bare = self.errors + ((2 * self.slope + pull) * out).sum(-1)
        slope, moved = self.slope + pull, self.moved + out
        prices = self.scales**2 * self.own[book] - 2 * self.scales * (slope @ words.T) + bare.unsqueeze(-1)
        self.errors, kept = prices.flatten(1).topk(min(beam, prices[0].numel()), largest=False)
        parents, values = kept // len(words), kept % len(words)
        new = words[values] * self.scales
        self.moved = taken(moved, parents) - new
        self.slope = taken(slope, parents) - new @ self.gram
        self.codes = taken(self.codes, parents)
        self.codes[..., book] = values
        self.origin = self.origin.gather(1, parents)

    def follow(self, state: Tensor) -> Tensor:
        """Something each beam had when the group was entered, for the beams there are now."""
        return taken(state, self.origin)


def taken(state: Tensor, beams: Tensor) -> Tensor:
    """state [out, beams, ...] of the chosen beams [out, chosen]; always a new tensor."""
    rows = torch.arange(len(state), device=state.device).unsqueeze(1)
    return state[rows, beams]
