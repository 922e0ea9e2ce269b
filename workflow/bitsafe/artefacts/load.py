"""Any artefact as an ordinary model with dense linear layers: the engine of both arms of every comparison."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from bitsafe.artefacts.activations import quantize_activations
from bitsafe.artefacts.artefact import Format, dense_folder, format_of, layers_of, unquantized
from bitsafe.artefacts.checkpoint import read_tensors
from bitsafe.artefacts.layers import Layer
from bitsafe.artefacts.quiet import quiet
from bitsafe.errors import CellError, UserError


def load_dense(artefact: Path, dtype: str | torch.dtype) -> tuple[Any, Any]:
    """(model, tokenizer) of an artefact or of any Hugging Face folder, on the CPU, in `dtype`, in eval mode.

    Quantized weights are dequantized in float32, an adapter is added in float32, and the sum is rounded to `dtype`.
    Where the method quantizes activations too, they are rounded in the forward pass (bitsafe.artefacts.activations).
    A missing or surplus tensor is a CellError that names it.
    """
    dtype = as_dtype(dtype)
    kind = format_of(artefact)
    if kind in (Format.POINTER, Format.DENSE):
        folder = dense_folder(artefact)
        return load_model(folder, dtype), load_tokenizer(folder)
    tensors, layers = dense_tensors(artefact, dtype)
    model = load_model(artefact, dtype, tensors)
    quantize_activations(model, artefact, layers)
    return model, load_tokenizer(artefact)


def load_model(folder: Path, dtype: str | torch.dtype, tensors: dict[str, Tensor] | None = None) -> Any:
    """The model that config.json describes, with the folder's own weights or with `tensors` in their place."""
    config = transformers.AutoConfig.from_pretrained(folder)
    if tensors is not None and hasattr(config, "quantization_config"):
        del config.quantization_config
    place = folder if tensors is None else None
    with quiet():
        model, info = model_class(folder, config).from_pretrained(
            place, config=config, state_dict=tensors, dtype=as_dtype(dtype), output_loading_info=True
        )
    problems = ["missing_keys", "mismatched_keys"] + ["unexpected_keys"] * (tensors is not None)
    for problem in problems:
        if names := sorted(map(str, info[problem])):
            raise CellError(f"{folder}: {problem.replace('_', ' ')}: {', '.join(names[:3])}")
    if (folder / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model.eval()


def model_class(folder: Path, config: Any) -> type:
    """The transformers class a checkpoint names; only it is imported."""
    names = config.architectures or []
    if len(names) != 1 or not hasattr(transformers, names[0]):
        raise UserError(f"{folder}/config.json: architectures: {names}: one that transformers knows is needed")
    return getattr(transformers, names[0])


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; one without a chat template is a UserError."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise UserError(f"{folder}: its tokenizer has no chat template: add chat_template.jinja")
    return tokenizer


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def dense_tensors(artefact: Path, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Layer]]:
    """The artefact's tensors with every quantized layer turned into one dense weight, and those layers."""
    tensors = read_tensors(artefact)
    layers = layers_of(artefact, tensors)
    if not layers:
        raise CellError(f"{artefact}: its config says quantized, but no layer of it is")
    return unquantized(tensors, layers) | {
        f"{name}.weight": layer.dense().to(dtype) for name, layer in layers.items()
    }, layers
