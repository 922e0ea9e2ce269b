"""The card that is measured on, what to compare its figures by, and the reason where there is none."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = ("torch", "transformers", "llmcompressor", "compressed-tensors", "bitsandbytes", "peft", "accelerate")


def why_not() -> str:
    """One line that says why nothing can run on a GPU here; "" where it can."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return "" if torch.cuda.is_available() else f"no CUDA device (torch {torch.__version__} sees none)"


def machine() -> dict[str, Any]:
    """The shape of `machine` in every benchmark's rows, and the card with its memory and its CUDA."""
    import torch

    found = {"cpus": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}
    if not torch.cuda.is_available():
        return found | {"card": None}
    card = torch.cuda.get_device_properties(0)
    return found | {"card": card.name, "card_mb": card.total_memory / 1e6, "cuda": torch.version.cuda}


def versions() -> dict[str, str | None]:
    """Of the libraries that do the work; None for one that is not installed."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
