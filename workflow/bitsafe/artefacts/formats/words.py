"""Codes of a few bits in a row of 32-bit words, low bits first, across word boundaries: GPTQ's and AWQ's packing.

And single bits in a row of bytes.
"""

import numpy as np
import torch
from torch import Tensor

WORD = 32


def pack_words(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes [rows, n] of 1 to 8 bits to int32 words [rows, n·bits/32]; n must be a multiple of 32/gcd(32, bits).

    Code k lies at bits k·bits … k·bits + bits − 1 of its row; at 3 bits, 32 codes fill three words.
    """
    if codes.shape[1] * bits % WORD:
        raise ValueError(f"{codes.shape[1]} codes of {bits} bits do not fill whole words of {WORD} bits")
    single = np.unpackbits(codes.to(torch.uint8).numpy()[..., None], axis=-1, count=bits, bitorder="little")
    packed = np.packbits(single.reshape(len(codes), -1), axis=-1, bitorder="little")
    return torch.from_numpy(packed.view("<i4").astype(np.int32))


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """The reverse of `pack_words`: uint8 codes [rows, words·32/bits]."""
    if words.dtype != torch.int32 or words.shape[1] * WORD % bits:
        raise ValueError(f"{words.dtype} words {tuple(words.shape)} hold no whole number of {bits}-bit codes")
    stored = np.ascontiguousarray(words.numpy().astype("<i4", copy=False)).view(np.uint8)
    single = np.unpackbits(stored, axis=-1, bitorder="little").reshape(len(words), -1, bits)
    return torch.from_numpy(np.packbits(single, axis=-1, bitorder="little")[..., 0])


def pack_flags(flags: Tensor) -> Tensor:
    """bool [n] to uint8 [⌈n/8⌉], the first flag in the lowest bit."""
    return torch.from_numpy(np.packbits(flags.numpy(), bitorder="little"))


def unpack_flags(octets: Tensor, count: int) -> Tensor:
    """The reverse of `pack_flags`; too few or too many bytes are a ValueError."""
    if len(octets) != -(-count // 8):
        raise ValueError(f"{len(octets)} bytes for {count} flags")
    return torch.from_numpy(np.unpackbits(octets.numpy(), count=count, bitorder="little")).bool()
