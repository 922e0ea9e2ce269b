"""llm-compressor, called once a model: calibration batches, its session, and the grids it leaves behind."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bitsafe.artefacts.checkpoint import read_config, storage_dtype
from bitsafe.artefacts.formats.compressed import weight_args, write_compressed
from bitsafe.artefacts.grids import AffineGrid
from bitsafe.artefacts.layers import QuantizedLinear
from bitsafe.artefacts.quiet import quiet
from bitsafe.errors import CellError
from bitsafe.quantizers.base import QuantizeJob, require_bits, require_groups, require_params
from bitsafe.quantizers.shared.calibration import prepare

BITS = (8, 4, 3, 2)

os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")  # read when llmcompressor is imported, further down

# (scheme by group name, layers to leave out) -> llm-compressor modifiers
Recipe = Callable[[dict[str, Any], list[str]], list[Any]]


def calibrate(job: QuantizeJob, recipe: Recipe, own_param: str) -> dict:
    """Quantize job.source with the modifiers of `recipe`, write a compressed-tensors artefact, return facts.

    Calibration sees whole conversations in batches without padding, which would enter the statistics.
    """
    require_bits(job, BITS)
    require_params(job, ("group_size", "symmetric", "samples", own_param))
    require_groups(job)
    ready = prepare(replace(job, dtype="float32") if _offset_norms(job) else job)
    modifiers = recipe(_scheme(job), ["lm_head"])
    run_modifiers(ready.model, ready.batches, modifiers)
    require_second_order(modifiers)
    layers = [_layer(ready.model.get_submodule(name), name, job) for name in ready.names]
    write_compressed(job.out, job.source, layers, ready.others(), job.group_size)
    return ready.facts


def _offset_norms(job: QuantizeJob) -> bool:
    """Gemma's norms multiply by 1 + w: llm-compressor adds 1 and takes it off again, which 16 bits do not survive."""
    return str(read_config(job.source).get("model_type", "")).startswith("gemma")


def require_second_order(modifiers: list[Any]) -> None:
    """CellError where GPTQ fell back to plain rounding, which llm-compressor only says in its log."""
    for modifier in modifiers:
        if fallen := getattr(modifier, "_rtn_fallback_module_names", []):
            raise CellError(
                f"{len(fallen)} layers (first: {fallen[0]}) have a Hessian that cannot be factorized, and would be "
                "rounded plainly: raise params.dampening, or calibrate on more data"
            )


def _scheme(job: QuantizeJob) -> dict[str, Any]:
    args = weight_args(job.bits, job.group_size, job.symmetric)
    args.scale_dtype = storage_dtype(job.source)  # scales are rounded as they will be stored, before any weight is
    return {"group_0": {"targets": ["Linear"], "weights": args}}


def run_modifiers(model: nn.Module, batches: list[Tensor], modifiers: list[Any]) -> None:
    """Let llm-compressor change the model on calibration batches of token ids [rows, tokens]."""
    from compressed_tensors.offload.dispatch import remove_dispatch
    from llmcompressor import oneshot

    rows = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in batches]
    with _session(), quiet():
        oneshot(model=model, dataset=DataLoader(rows, batch_size=None), recipe=modifiers)
        remove_dispatch(model)  # else every read of a weight would bring it onto the GPU again
    model.cpu()


@contextmanager
def _session() -> Iterator[None]:
    """llm-compressor's global session, empty before and after."""
    from llmcompressor.core import reset_session
    from llmcompressor.pipelines.cache import IntermediatesCache

    pin_memory = IntermediatesCache.pin_memory
    if (
        not torch.accelerator.is_available()
    ):  # version 0.14 pins memory without asking, which only a GPU's driver can do
        IntermediatesCache.pin_memory = lambda self, *args, **kwargs: None
    reset_session()
    try:
        yield
    finally:
        reset_session()
        IntermediatesCache.pin_memory = pin_memory


def _layer(module: nn.Module, name: str, job: QuantizeJob) -> QuantizedLinear:
    """The codes and grid of a calibrated layer. llm-compressor's zero-points are signed, ours are not."""
    scale = module.weight_scale.detach().to(storage_dtype(job.source))
    signed = None if job.symmetric else module.weight_zero_point.detach().to(torch.int16)
    zero_point = None if signed is None else (signed + 2 ** (job.bits - 1)).to(torch.uint8)
    grid = AffineGrid(job.bits, module.weight.shape[1] // scale.shape[1], scale, zero_point)
    return QuantizedLinear(name, grid.nearest(module.weight), grid)
