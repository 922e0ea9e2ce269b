"""Where some weights of a layer stand: a list of columns a row, or one bit a weight, whichever takes less room."""

import torch
from torch import Tensor

from bitsafe.artefacts.formats.words import pack_flags, unpack_flags

COUNTS, COLUMNS, BITMAP = "kept_counts", "kept_columns", "kept_bitmap"


def index_of(kept: Tensor) -> dict[str, Tensor]:
    """The shorter index of a boolean mask [out, in], by name; `mask_of` reads it.

    As a list: COUNTS [out], how many stand in each row, and COLUMNS [kept], ascending within a row, each in the
    narrowest of uint8, int16 and int32 that holds what can be. As a bitmap: BITMAP [⌈out·in/8⌉] uint8, row by row.
    """
    rows, width = kept.shape
    counter, place = narrowest(width), narrowest(width - 1)
    if rows * counter.itemsize + int(kept.sum()) * place.itemsize <= -(-rows * width // 8):
        return {COUNTS: kept.sum(1).to(counter), COLUMNS: kept.nonzero()[:, 1].to(place)}
    return {BITMAP: pack_flags(kept.flatten())}


def narrowest(top: int) -> torch.dtype:
    """The narrowest integer that holds 0 … top."""
    return next(dtype for dtype in (torch.uint8, torch.int16, torch.int32) if top <= torch.iinfo(dtype).max)


def mask_of(parts: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """The mask [out, in] of an index; one that does not fit the shape is a ValueError."""
    if BITMAP in parts:
        return unpack_flags(parts[BITMAP], shape[0] * shape[1]).view(shape)
    counts, columns = parts[COUNTS].long(), parts[COLUMNS].long()
    if len(counts) != shape[0] or int(counts.sum()) != len(columns):
        raise ValueError(f"{len(columns)} kept weights, where the counts of {len(counts)} rows say {int(counts.sum())}")
    if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < shape[1]:
        raise ValueError(f"kept weights outside {shape[1]} columns")
    kept = torch.zeros(shape, dtype=torch.bool)
    kept[torch.arange(shape[0]).repeat_interleave(counts), columns] = True
    return kept
