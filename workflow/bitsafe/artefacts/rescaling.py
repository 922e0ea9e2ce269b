"""How a method rescaled layers before it rounded them: AWQ takes a scale out of one layer and puts it into the next.

What such a method rounds is W ⊙ input / output (AWQ: Lin et al. 2023, arXiv 2306.00978, eq. 4), not the source's W; the
model computes the same with both. `rescaling/scales.safetensors` beside an artefact holds, for a layer X, X.input [in]
and X.output [out], as the method had them; what is not named there was left as it was. No model is built with it: it is
there for whoever puts weights of the source back. It lies in a folder of its own because vLLM reads every safetensors
file beside config.json.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE = Path("rescaling", "scales.safetensors")


@dataclass(frozen=True)
class Rescaling:
    """Of one layer. input: [in], output: [out]; None is one everywhere."""

    input: Tensor | None = None
    output: Tensor | None = None

    def of(self, weight: Tensor) -> Tensor:
        """The weight as it was rounded, float32 [out, in], from the source's: scaled as AWQ does it, inputs first."""
        scaled = weight.float() if self.input is None else (weight.float() * self.input).float()
        return scaled if self.output is None else (scaled / self.output.unsqueeze(1)).float()


def write_rescaling(out: Path, layers: dict[str, Rescaling]) -> None:
    """Say beside an artefact how its layers were rescaled."""
    sides = {f"{name}.{side}": getattr(layer, side) for name, layer in layers.items() for side in ("input", "output")}
    (out / FILE).parent.mkdir()
    save_file({key: scales.contiguous() for key, scales in sides.items() if scales is not None}, out / FILE)


def read_rescaling(artefact: Path) -> dict[str, Rescaling]:
    """What an artefact says, by layer; {} where it says nothing."""
    if not (artefact / FILE).exists():
        return {}
    sides: dict[str, dict[str, Tensor]] = {}
    for key, scales in load_file(artefact / FILE).items():
        name, _, side = key.rpartition(".")
        sides.setdefault(name, {})[side] = scales
    return {name: Rescaling(**found) for name, found in sides.items()}


def rescalings(found: list[tuple[str, list[str], Tensor]], shapes: dict[str, tuple[int, int]]) -> dict[str, Rescaling]:
    """Each layer's scales from what a search applied: (layer whose outputs were divided, layers whose inputs were
    multiplied, scales), in that order.

    shapes: (out, in) of the layers asked for; a norm, which is none, stands in the artefact as it became. Scales
    fewer than a layer's outputs belong to its last ones (a fused projection whose last part is the values').
    """
    inputs, outputs = {}, {}
    for divided, multiplied, scales in found:
        inputs |= {name: scales * inputs.get(name, 1.0) for name in multiplied}
        if divided in shapes:
            whole = torch.ones(shapes[divided][0], dtype=scales.dtype)
            whole[-len(scales) :] = scales
            outputs[divided] = whole * outputs.get(divided, 1.0)
    return {name: Rescaling(inputs.get(name), outputs.get(name)) for name in shapes}
