"""Hugging Face checkpoint folders, read at the level of tensors: no model is built here."""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bitsafe.errors import CellError, UserError
from bitsafe.files import read_json, write_json

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
SIDE_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template*",
    "generation_config.json",
    "vocab*",
    "merges.txt",
)
_DECODER_WEIGHT = re.compile(r"(.*\.layers\.\d+\..+)\.weight")
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}
_BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or many; none is a CellError."""
    index = folder / INDEX
    names = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else [WEIGHTS]
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise CellError(f"{folder / missing[0]}: no such file (only safetensors checkpoints are read)")
    return [folder / name for name in names]


def tensor_headers(folder: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """Name to (shape, bytes) of every tensor, read from the headers alone."""
    headers = {}
    for file in weight_files(folder):
        with _open(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (a safe_open is no dict)
                part = tensors.get_slice(name)
                shape = tuple(part.get_shape())
                headers[name] = shape, _BYTES[part.get_dtype()] * torch.Size(shape).numel()
    return headers


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, as stored."""
    tensors = {}
    for file in weight_files(folder):
        with _open(file) as opened:
            tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return tensors


def _open(file: Path):
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CellError(f"{file}: not a whole safetensors file ({error})") from error


def write_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """One model.safetensors, sorted by name, so that equal tensors give equal bytes."""
    whole = {name: tensors[name].contiguous() for name in sorted(tensors)}
    save_file(whole, folder / WEIGHTS, metadata={"format": "pt"})


def replace_tensors(folder: Path, out: Path, new: dict[str, Tensor]) -> None:
    """Copy a whole folder into `out` (empty or absent) with some tensors replaced, every other byte kept."""
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: not empty: an artefact is written into an empty folder")
    shutil.copytree(folder, out, copy_function=shutil.copyfile, dirs_exist_ok=True)  # a shared one is read-only
    for file in weight_files(folder):
        with _open(file) as opened:
            names, metadata = list(opened.keys()), opened.metadata()
            if not set(names) & set(new):
                continue
            tensors = {name: opened.get_tensor(name) for name in names}
        changed = {name: new[name].contiguous() for name in names if name in new}
        for name, tensor in changed.items():
            if (tensor.shape, tensor.dtype) != (tensors[name].shape, tensors[name].dtype):
                raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)} does not fit what is stored")
        save_file(tensors | changed, out / file.name, metadata=metadata)


def decoder_linears(folder: Path) -> dict[str, tuple[int, int]]:
    """Name to (out, in) of each linear layer of the decoder: what is quantized. Embeddings and the head stay."""
    shapes = {
        m[1]: shape for name, (shape, _) in tensor_headers(folder).items() if (m := _DECODER_WEIGHT.fullmatch(name))
    }
    return {name: shape for name, shape in shapes.items() if len(shape) == 2}


def read_config(folder: Path) -> dict:
    """config.json of a checkpoint as a dict."""
    return read_json(folder / CONFIG)


def storage_dtype(folder: Path) -> torch.dtype:
    """The dtype a checkpoint is stored in; scales and whatever stays unquantized keep it."""
    config = read_config(folder)
    return getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"))


def copy_side_files(source: Path, out: Path) -> None:
    """Tokenizer, chat template and generation settings."""
    for pattern in SIDE_FILES:
        for file in source.glob(pattern):
            shutil.copyfile(file, out / file.name)


def write_config(source: Path, out: Path, **changes: object) -> None:
    """The source's config.json with some keys changed."""
    write_json(out / CONFIG, json.loads(json.dumps(read_config(source) | changes, default=str)))
