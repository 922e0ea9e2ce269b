"""What a replicate's artefact is, how it was made and from what: the manifest that travels with it."""

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bitsafe import __version__
from bitsafe.files import read_json, sha256_file, sha256_folder, sha256_text
from bitsafe.matrix.tables import ROOT

LIBRARIES = ("torch", "transformers", "compressed-tensors", "llmcompressor", "bitsandbytes", "peft", "tokenizers")


def provenance() -> dict[str, Any]:
    """Versions, commit and hardware: the same for every artefact of a process."""
    return {
        "bitsafe": __version__,
        "commit": git_commit(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "python": platform.python_version(),
        "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": _gpus()},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]


@lru_cache
def git_commit() -> str:
    """The commit of the checkout, with `-dirty` when tracked files differ from it; "unknown" outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git in this environment, or no repository
        return "unknown"


def source_identity(source: Path) -> dict[str, Any]:
    """Weights, tokenizer and chat template of the full-precision folder, by hash; where a fetched one is from."""
    origin = source.parent / "source.json"  # beside the checkpoint that `fetch_model` filled
    template = source / "chat_template.jinja"
    return {
        "weights_sha256": sha256_folder_of(source, "*.safetensors"),
        "tokenizer_sha256": sha256_file(source / "tokenizer.json") if (source / "tokenizer.json").exists() else "",
        "chat_template_sha256": sha256_text(template.read_text()) if template.exists() else "",
        "origin": read_json(origin) if origin.exists() else {"folder": source.name},
    }


def sha256_folder_of(folder: Path, pattern: str) -> str:
    """One hash over the files that match, in the order of their names."""
    return sha256_text("".join(sha256_file(file) for file in sorted(folder.glob(pattern))))


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def artefact_identity(folder: Path) -> dict[str, Any]:
    return {"artefact_sha256": sha256_folder(folder), "bytes": folder_bytes(folder)}
