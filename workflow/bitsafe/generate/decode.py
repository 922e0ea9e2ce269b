"""The decoding loop: one pass through the model a step for every beginning that is still followed.

Rows with the same tokens so far (the settings of a grid, the samples of a prompt) share one entry of the cache and one
forward pass, and part when they draw different tokens; finished rows leave at once. So a prompt is read once however
many rows ask it, what all prompts of a batch begin with is read once too, and answers that go together are worked out
together. The tokens of a row are its own: its
parameters, its random numbers, and logits that do not depend on the batch but for the last bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessorList

from bitsafe.generate.cache import EntryCache, index
from bitsafe.generate.sampling import Knobs, draw

LEAST_SAVED = 32  # prompt tokens; a pass more pays only for more than it costs: the weights read once again


@dataclass(frozen=True)
class Stem:
    """The tokens of a beginning, and the rows that follow it."""

    tokens: list[int]
    rows: NDArray


class Decoding:
    """Rows on their way to their answers. One instance a batch.

    prompts: token ids of each row; knobs: [rows]; draws: uniforms [rows, max_new_tokens]; entries: cache entries at
    once; processors: what changes logits by the tokens so far (a repetition penalty).
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[list[int]],
        knobs: Knobs,
        draws: Tensor,
        stops: set[int],
        entries: int,
        processors: LogitsProcessorList | None = None,
    ) -> None:
        self.model, self.prompts, self.entries, self.processors = model, prompts, entries, processors or []
        self.knobs, self.draws = Knobs(*(column.to(model.device) for column in knobs)), draws.to(model.device)
        self.stops = np.array(sorted(stops))
        self.answers = np.zeros(draws.shape, dtype=np.int64)
        self.lengths = np.zeros(len(prompts), dtype=np.int64)
        self.broken = np.zeros(len(prompts), dtype=bool)  # rows whose next logits were no numbers
        self.passes = 0  # rows of the model's forward passes after the prompts: what sharing saves is seen by it

    @torch.inference_mode()
    def run(self) -> list[list[int] | None]:
        """The new tokens of each row, its end token included; None where logits on the way were no numbers."""
        waiting = self._stems() if self.draws.shape[1] else []
        while waiting:
            parked = self._wave(waiting[: self.entries])
            waiting = parked + waiting[self.entries :]
        said = zip(self.answers, self.lengths, self.broken)
        return [None if broken else row[:length].tolist() for row, length, broken in said]

    def _stems(self) -> list[Stem]:
        rows: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(self.prompts):
            rows.setdefault(tuple(prompt), []).append(row)
        return [Stem(list(tokens), np.array(followed)) for tokens, followed in rows.items()]

    def _wave(self, stems: list[Stem]) -> list[Stem]:
        """Decode these beginnings to the end of all rows; what found no room on the way is given back."""
        room = min(self.entries, sum(len(stem.rows) for stem in stems))
        lengths = [len(stem.tokens) for stem in stems]
        state = _State(self.model, lengths, room, self.draws.shape[1], keep_tokens=bool(self.processors))
        rows = np.concatenate([stem.rows for stem in stems])
        entry = np.repeat(np.arange(len(stems)), [len(stem.rows) for stem in stems])
        parked: list[Stem] = []
        logits = state.prefill([stem.tokens for stem in stems])
        while True:
            tokens = self._draw(state, logits, rows, entry)
            self.answers[rows, self.lengths[rows]] = tokens
            self.lengths[rows] += 1
            self.broken[rows] = ~torch.isfinite(logits.amax(-1)).cpu().numpy()[entry]
            going = (self.lengths[rows] < self.draws.shape[1]) & ~np.isin(tokens, self.stops) & ~self.broken[rows]
            rows, parents, tokens = rows[going], entry[going], tokens[going]
            parents, tokens, entry = _branches(parents, tokens)
            if len(parents) > self.entries:
                parked += self._park(rows, entry)
                staying = entry < self.entries
                rows, entry = rows[staying], entry[staying]
                parents, tokens = parents[: self.entries], tokens[: self.entries]
            if not len(rows):
                return parked
            place = _places(parents)
            self.passes += len(place)
            logits, entry = state.step(parents, tokens, place), place[entry]

    def _draw(self, state: "_State", logits: Tensor, rows: NDArray, entry: NDArray) -> NDArray:
        for processor in self.processors:
            logits = processor(state.tokens, logits)
        asked = index(rows, logits.device)
        uniforms = self.draws[asked, index(self.lengths[rows], logits.device)]
        return draw(logits, index(entry, logits.device), self.knobs.at(asked), uniforms).cpu().numpy()

    def _park(self, rows: NDArray, entry: NDArray) -> list[Stem]:
        """The beginnings past the last entry that has room, as prompts of a later wave."""
        parked = []
        for place in range(self.entries, int(entry.max()) + 1):
            followed = rows[entry == place]
            said = self.answers[followed[0], : self.lengths[followed[0]]].tolist()
            parked.append(Stem(list(self.prompts[followed[0]]) + said, followed))
        return parked


def _branches(parents: NDArray, tokens: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Parent and token of each beginning that rows now follow, and which of these each row follows."""
    pairs, followed = np.unique(parents << 32 | tokens, return_inverse=True)
    return pairs >> 32, pairs & (2**32 - 1), followed


def _places(parents: NDArray) -> NDArray:
    """Entries 0, 1, … for the children of rising `parents`: the first child stays where its parent is if it can.

    So an entry that has to be copied is never one that is written over.
    """
    first = np.diff(parents, prepend=-1) > 0
    staying = first & (parents < len(parents))
    place = np.where(staying, parents, -1)
    place[~staying] = np.setdiff1d(np.arange(len(parents)), parents[staying])
    return place


@torch.inference_mode()
def next_logits(model: Any, prompts: list[list[int]]) -> Tensor:
    """Logits [prompts, vocabulary] of what follows each prompt, in float32, on the model's device."""
    return _State(model, list(map(len, prompts)), len(prompts), 0, keep_tokens=False).prefill(prompts)


def shared_beginning(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with; the last of none is among them, for the logits after it are needed."""
    first, last = min(prompts), max(prompts)
    parted = (place for place, (one, other) in enumerate(zip(first, last)) if one != other)
    return min(next(parted, len(last)), *(len(prompt) - 1 for prompt in prompts))


class _State:
    """What the model has read: its cache, the padding at the left of each entry and, if asked, the tokens."""

    def __init__(self, model: Any, lengths: list[int], room: int, new: int, keep_tokens: bool) -> None:
        self.model, self.keep_tokens = model, keep_tokens
        self.used = max(lengths)
        self.padding = self.used - np.array(lengths)
        self.cache = EntryCache(model.config, room, self.used + new)
        self.tokens = torch.empty(0)

    def prefill(self, prompts: list[list[int]]) -> Tensor:
        """Logits [entries, vocabulary] of what follows the prompts.

        The padding is masked. It repeats a prompt's first token, so that a penalty on tokens finds no other there.
        """
        padded = index([[prompt[0]] * gap + prompt for gap, prompt in zip(self.padding, prompts)], self.model.device)
        ahead = self._read_once(prompts)
        if self.keep_tokens:
            self.tokens = padded[:, :ahead]
        logits = self._forward(padded[:, ahead:])
        self.cache.require_used(self.model.config)
        return logits

    def _read_once(self, prompts: list[list[int]]) -> int:
        """Read what all prompts begin with (a system prompt, examples) in one row; how many first slots that fills."""
        shared = shared_beginning(prompts)
        if shared * (len(prompts) - 1) < LEAST_SAVED:
            return 0
        beginning = index([prompts[0][:shared]], self.model.device)
        self.model(input_ids=beginning, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.cache.spread(index(self.padding, self.model.device))
        return shared

    def step(self, parents: NDArray, tokens: NDArray, place: NDArray) -> Tensor:
        """Logits of what follows one more token of each entry: `tokens[i]` after entry `parents[i]`, now `place[i]`."""
        moved, device = parents != place, self.model.device
        sources, targets = index(parents[moved], device), index(place[moved], device)
        if moved.any():
            self.cache.copy(sources, targets)
        padding, new = np.empty(len(place), dtype=np.int64), np.empty((len(place), 1), dtype=np.int64)
        padding[place], new[place, 0] = self.padding[parents], tokens
        self.padding = padding
        self.used += 1
        if self.keep_tokens:
            before = self.tokens[index(parents, device)]
            self.tokens = torch.empty_like(before).index_copy_(0, index(place, device), before)
        return self._forward(index(new, device))

    def _forward(self, tokens: Tensor) -> Tensor:
        """tokens: [entries, new], those of the last slots."""
        if self.keep_tokens:
            self.tokens = tokens if not len(self.tokens) else torch.cat([self.tokens, tokens], dim=1)
        padding = index(self.padding, tokens.device)[:, None]
        slots = torch.arange(self.used, device=tokens.device)
        positions = (slots[-tokens.shape[1] :] - padding).clamp(min=0)
        out = self.model(
            input_ids=tokens,
            attention_mask=(slots >= padding).long() if self.padding.any() else None,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()
