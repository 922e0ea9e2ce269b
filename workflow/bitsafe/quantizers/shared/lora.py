"""A LoRA adapter (Hu et al. 2021) by peft: put on a model, saved beside its artefact, merged into its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitsafe.artefacts.checkpoint import copy_side_files, storage_dtype, write_config, write_tensors
from bitsafe.artefacts.load import dense_tensors
from bitsafe.files import read_json, write_json
from bitsafe.quantizers.base import QuantizeJob, require_value


@dataclass(frozen=True)
class LoraShape:
    """rank: r. alpha: the adapter adds alpha / rank · B A."""

    rank: int
    alpha: int

    @classmethod
    def of(cls, job: QuantizeJob) -> "LoraShape":
        for key in ("rank", "alpha"):
            require_value(key in job.params, key, "missing", "the shape of the adapter")
        return cls(job.params["rank"], job.params["alpha"])


def with_adapter(model: Any, names: list[str], shape: LoraShape) -> Any:
    """peft's model around `model`, with an adapter on every layer named; B starts at zero."""
    from peft import LoraConfig, get_peft_model

    targets = sorted({name.rpartition(".")[2] for name in names})
    config = LoraConfig(
        r=shape.rank, lora_alpha=shape.alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def adapter_parameters(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if "lora_" in name]


def save_adapter(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """In the dtype of the checkpoint; no path of this machine and no order of a set gets into its config."""
    for parameter in adapter_parameters(model):
        parameter.data = parameter.data.to(dtype)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = read_json(folder / "adapter_config.json")
    names = {"base_model_name_or_path": "", "target_modules": sorted(config["target_modules"])}
    write_json(folder / "adapter_config.json", config | names)


def merge_adapter(artefact: Path, source: Path, out: Path) -> None:
    """Write an ordinary checkpoint: base plus adapter in float32, rounded once to the dtype of the source."""
    tensors, _ = dense_tensors(artefact, storage_dtype(source))
    write_tensors(out, tensors)
    write_config(source, out)
    copy_side_files(source, out)
