"""Which codebooks a model of which size gets. A layout KxBgN is K codebooks of B bits for groups of N inputs."""

import re
from dataclasses import dataclass

from bitsafe.errors import UserError


@dataclass(frozen=True)
class Layout:
    codebooks: int
    code_bits: int
    group: int

    def __str__(self) -> str:
        return f"{self.codebooks}x{self.code_bits}g{self.group}"

    @property
    def bits(self) -> float:
        """Bits of codes a weight."""
        return self.codebooks * self.code_bits / self.group

    def overhead(self, shapes: list[tuple[int, int]], number_bits: int) -> float:
        """Bits of codebooks and scales a weight, over all layers (out, in) of a model; number_bits: 16 as a rule."""
        numbers = sum(self.codebooks * 2**self.code_bits * self.group + out for out, _ in shapes)
        return number_bits * numbers / sum(out * width for out, width in shapes)


@dataclass(frozen=True)
class Size:
    """Models whose narrowest layer has at least `width` inputs. limit: bits a weight that codebooks and scales may
    take. A codebook costs the same however few weights share it, so it must shrink with the model.
    """

    width: int
    limit: float
    layouts: dict[int, str]  # by bits


SIZES = (  # the widest first
    Size(3072, 0.75, {2: "1x16g8", 3: "3x8g8", 4: "4x8g8", 8: "8x8g8"}),  # 7B: the library's own choice at 2 bits
    Size(512, 0.75, {2: "2x8g8", 3: "3x8g8", 4: "4x8g8", 8: "8x8g8"}),  # SmolLM2, Qwen2.5-1.5B
    Size(0, 1.25, {2: "2x4g4", 3: "2x6g4", 4: "1x8g2", 8: "2x8g2"}),  # the toy
)
BITS = (8, 4, 3, 2)
AUTO = "auto"
_KEY = "workflow/tables/methods.yaml: params.layout"


def parse(text: str) -> Layout:
    """`2x8g8` as a Layout; anything else is a UserError."""
    found = re.fullmatch(r"(\d+)x(\d+)g(\d+)", text)
    if not found or not all(int(part) for part in found.groups()) or int(found[2]) > 16:
        raise UserError(
            f"{_KEY}: {text!r} is no layout: one such as 2x8g8 is needed (codebooks, bits a code, at most 16, inputs "
            f"a group), or {AUTO}"
        )
    return Layout(*map(int, found.groups()))


def size_of(width: int) -> Size:
    """The row of the table for a model whose narrowest layer has `width` inputs."""
    return next(size for size in SIZES if width >= size.width)


def choose(text: str, bits: int, shapes: dict[str, tuple[int, int]], number_bits: int) -> Layout:
    """The layout of a model with these layers (name to (out, in)); one that does not fit is a UserError."""
    size = size_of(min(width for _, width in shapes.values()))
    layout = parse(size.layouts[bits] if text == AUTO else str(text))
    if layout.bits != bits:
        raise UserError(f"{_KEY}: {layout} has {layout.bits:g} bits a weight, the cell has {bits}: remedy: {AUTO}")
    for name, (_, width) in shapes.items():
        if width % layout.group:
            raise UserError(f"{_KEY}: {layout}: groups of {layout.group} do not divide the {width} inputs of {name}")
    overhead = layout.overhead(list(shapes.values()), number_bits)
    if overhead > size.limit:
        raise UserError(
            f"{_KEY}: {layout}: its codebooks and scales would take {overhead:.2f} bits a weight of this model, at "
            f"most {size.limit} are allowed: name a layout with fewer bits a code, as {size.layouts[bits]}"
        )
    return layout
