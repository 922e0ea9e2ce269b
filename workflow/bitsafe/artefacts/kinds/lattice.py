"""Vectors of eight weights as points of a lattice codebook, between two random rotations: QuIP#."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bitsafe.artefacts.formats.words import pack_flags, unpack_flags
from bitsafe.artefacts.grids import bits_of
from bitsafe.artefacts.layers import Layer
from bitsafe.quantizers.lattice.codec import DIMENSION, bits_of_codes, decode
from bitsafe.quantizers.lattice.hadamard import rotate_matrix_back


@dataclass(frozen=True)
class LatticeLinear(Layer):
    """W = S_r Q (scale · points) Q S_c: Q are known orthogonal matrices, S random signs (quantizers.lattice.hadamard).

    codes: int16 [out, in/8], the E8P point of each vector of eight inputs. residual: None at 2 bits, uint8 of the same
    shape at 3, int16 at 4. scale: float32 [stages]. row_signs, column_signs: bool [out] and [in], True for minus.
    """

    codes: Tensor
    residual: Tensor | None
    scale: Tensor
    row_signs: Tensor
    column_signs: Tensor

    @property
    def bits(self) -> int:
        return bits_of_codes(self.residual)

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1] * DIMENSION

    @property
    def code_bits(self) -> int:
        """65536 points in 16 bits and 256 in 8: no code goes unused."""
        return sum(codes.numel() * bits_of(codes) for codes in (self.codes, self.residual) if codes is not None)

    @property
    def extra_bits(self) -> int:
        """One bit a sign, and the scales; the codebooks are the method's and take no room in a file."""
        return self.row_signs.numel() + self.column_signs.numel() + self.scale.numel() * bits_of(self.scale)

    def weight(self) -> Tensor:
        rotated = decode(self.codes, self.residual, self.scale).flatten(1)
        return rotate_matrix_back(rotated, self.row_signs, self.column_signs)

    def side(self) -> list[Tensor]:
        return [self.scale]

    def fault(self) -> str | None:
        if self.residual is not None and self.residual.shape != self.codes.shape:
            return f"residual codes {tuple(self.residual.shape)} beside codes {tuple(self.codes.shape)}"
        if len(self.scale) != (1 if self.residual is None else 2):
            return f"{len(self.scale)} scales for {self.bits} bits"
        return super().fault()


def stored(layer: LatticeLinear) -> dict[str, Tensor]:
    """The fields by their own names; signs are packed eight to a byte, the first in the lowest bit."""
    parts = {"codes": layer.codes, "residual": layer.residual, "scale": layer.scale}
    parts |= {"row_signs": pack_flags(layer.row_signs), "column_signs": pack_flags(layer.column_signs)}
    return {name: part for name, part in parts.items() if part is not None}


def restored(name: str, parts: dict[str, Tensor], settings: dict[str, Any]) -> LatticeLinear:
    codes = parts["codes"]
    rows = unpack_flags(parts["row_signs"], codes.shape[0])
    columns = unpack_flags(parts["column_signs"], codes.shape[1] * DIMENSION)
    return LatticeLinear(name, codes, parts.get("residual"), parts["scale"], rows, columns)
