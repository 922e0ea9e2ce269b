"""The size of a model: from its row before the checkpoint is here, held against the checkpoint once it is."""

import json
import math
from pathlib import Path

from bitsafe.errors import UserError
from bitsafe.files import read_json
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.resources.rows import Architecture

FACTS = ("layers", "hidden_size", "kv_width", "vocabulary")


def architecture(run: Run, model: str) -> Architecture:
    """The row's `architecture`, or the checkpoint's where the row names none.

    A UserError where they differ, or where neither is there.
    """
    row, folder = run.model(model), checkpoint_folder(run, model)
    where = f"workflow/tables/models.yaml: {model}.architecture"
    if not (folder / "config.json").exists():
        if row.architecture is None:
            keys = ", ".join(Architecture.model_fields)
            raise UserError(
                f"{where}: missing, and its checkpoint is not here yet: copy {keys} from its config.json, "
                "or fetch the model first"
            )
        return row.architecture
    found = read_architecture(folder)
    if row.architecture is None:
        return found
    check_same(row.architecture, found, where, folder)
    return row.architecture


def checkpoint_folder(run: Run, model: str) -> Path:
    """Where the first replicate's checkpoint lies, or will."""
    row = run.model(model)
    if row.path is not None:
        return ROOT / row.path.format(replicate=0)
    return Path(run.config.results) / "models" / model / "checkpoint"


def check_same(row: Architecture, found: Architecture, where: str, folder: Path) -> None:
    """A UserError for the first key in which a row and its checkpoint differ.

    A head that is tied and yet stored makes a checkpoint larger by one embedding, which is no mistake of the row.
    """
    for name in FACTS:
        ours, theirs = getattr(row, name), getattr(found, name)
        if ours != theirs:
            raise UserError(f"{where}.{name}: {ours}, but {folder}/config.json says {theirs}: mend the row")
    stored = found.parameters - row.parameters
    if stored not in (0, row.vocabulary * row.hidden_size):
        raise UserError(f"{where}.parameters: {row.parameters}, but {folder} holds {found.parameters}: mend the row")


def read_architecture(folder: Path) -> Architecture:
    """The size of the checkpoint in a folder, from config.json and the headers of its safetensors files."""
    config = read_json(folder / "config.json")
    config = config.get("text_config", config)
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return Architecture(
        parameters=stored_weights(folder),
        layers=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
        kv_width=(config.get("num_key_value_heads") or heads) * head_dim,
        vocabulary=config["vocab_size"],
    )


def stored_weights(folder: Path) -> int:
    """Weights in the safetensors files of a folder; read from the headers alone, without torch."""
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    if not total:
        raise UserError(f"{folder}: no weights in its safetensors files: fetch the model again")
    return total
