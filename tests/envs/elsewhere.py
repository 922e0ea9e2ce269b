"""What these tests share: skipping where an environment is not installed, and a library's own logits."""

import importlib
import json
import subprocess
from pathlib import Path

import pytest
import torch

from bitsafe.artefacts.load import load_dense
from bitsafe.matrix.environments import FOLDER
from bitsafe.quantizers.base import QuantizeJob

NATIVE = Path(__file__).with_name("native_logits.py")
IDS = list(range(5, 125))


def need(environment: str) -> Path:
    """The interpreter of an environment; the test is skipped, with the reason, where it is not installed."""
    if not (FOLDER / environment / ".installed-from-lock").exists():
        pytest.skip(f".envs/{environment} is not installed: make env NAME={environment}")
    return FOLDER / environment / "bin" / "python"


def quantized(method: str, source: Path, out: Path, conversations: list[dict], bits: int, **params) -> dict:
    out.mkdir(parents=True)
    module = importlib.import_module(f"bitsafe.quantizers.{method}")
    return module.quantize(QuantizeJob(source, out, bits, params, conversations, seed=3))


def native_logits(environment: str, folder: Path, tmp_path: Path, kernel: str = "transformers") -> torch.Tensor:
    """Logits [tokens, vocab] of IDS by an environment's own loader; kernel: one of gptqmodel's, or what it chooses."""
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    command = [need(environment), "-I", NATIVE, folder, tmp_path / "ids.json", tmp_path / "logits.json", kernel]
    subprocess.run(command, check=True, cwd=tmp_path)
    return torch.tensor(json.loads((tmp_path / "logits.json").read_text()))


def our_logits(folder: Path, dtype: str = "float32") -> torch.Tensor:
    """The same by our dense path."""
    with torch.no_grad():
        return load_dense(folder, dtype)[0](torch.tensor([IDS])).logits[0].float()
