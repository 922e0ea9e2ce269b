"""Keys and values of the tokens so far, one entry for every beginning that any row of the batch still follows.

Entries are written in place: what a step costs does not grow with what is kept. Rows that part take a copy of the
entry they shared, and an entry that nobody follows any more is written over.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from bitsafe.errors import UserError

ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


class EntryLayer(CacheLayerMixin):
    """Keys and values of one layer: [entries, heads, slots, size], of which a leading part is in use.

    Slots out of a sliding window stay, and the mask of the model hides them: it counts slots, and slots are places.
    """

    is_sliding = False

    def __init__(self, entries: int, slots: int) -> None:
        super().__init__()
        self.room, self.slots, self.used = entries, slots, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = self._empty(key_states), self._empty(value_states)
        self.is_initialized = True

    def _empty(self, states: Tensor) -> Tensor:
        return states.new_empty(self.room, states.shape[1], self.slots, states.shape[3])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Put the states [entries, heads, new, size] into the next slots; all of the entries' states so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        entries, before, self.used = len(key_states), self.used, self.used + key_states.shape[2]
        found = []
        for kept, states in ((self.keys, key_states), (self.values, value_states)):
            kept[:entries, :, before : self.used] = states
            found.append(kept[:entries, :, : self.used])
        return found[0], found[1]

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Entries `targets` become those of `sources`."""
        for kept in (self.keys, self.values):
            kept[targets, :, : self.used] = kept[sources, :, : self.used]

    def spread(self, padding: Tensor) -> None:
        """The slots of entry 0 for all entries, each behind its padding [entries]; what that pushes out is left out.

        Slots of padding hold numbers too: a mask hides them, but times nothing a NaN stays one.
        """
        slots = torch.arange(self.used, device=padding.device)
        places = (slots - padding[:, None]).clamp(min=0)
        for kept in (self.keys, self.values):
            kept[: len(padding), :, : self.used] = kept[0][:, places].transpose(0, 1)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0

    def get_seq_length(self) -> int:
        return self.used

    def get_max_length(self) -> int:
        return self.slots


class EntryCache(Cache):
    """The layers of a model, each with room for `entries` beginnings of `slots` tokens."""

    def __init__(self, config: Any, entries: int, slots: int) -> None:
        config = config.get_text_config(decoder=True)
        kinds = set(getattr(config, "layer_types", None) or ())
        if unknown := sorted(kinds - ATTENTION):
            raise UserError(
                f"{config.model_type}: layers of kind {unknown[0]}: only attention with keys and values works"
            )
        super().__init__(layers=[EntryLayer(entries, slots) for _ in range(config.num_hidden_layers)])

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Entries `targets` become those of `sources` in every layer (several devices: each on its own)."""
        for layer in self.layers:
            if layer.is_initialized:  # one that reads another's keys and values has none of its own (Gemma 3n)
                layer.copy(sources.to(layer.keys.device), targets.to(layer.keys.device))

    def spread(self, padding: Tensor) -> None:
        """What entry 0 has read becomes the beginning of every entry, behind its padding [entries]."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.spread(padding.to(layer.keys.device))

    def require_used(self, config: Any) -> None:
        """After the prompts were read: UserError for a model that keeps its state elsewhere (recurrent layers)."""
        config = config.get_text_config(decoder=True)
        idle = [number for number, layer in enumerate(self.layers) if not layer.is_initialized]
        if len(idle) > (getattr(config, "num_kv_shared_layers", None) or 0):
            raise UserError(
                f"{config.model_type}: layer {idle[0]} keeps no keys and values: only attention with them works"
            )


def index(places: Any, device: Any) -> Tensor:
    return torch.as_tensor(places, dtype=torch.long, device=device)
