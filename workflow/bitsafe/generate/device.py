"""Where a model computes, and in what numbers."""

from typing import Any

import torch

from bitsafe.errors import UserError

PATCHED = 9.0  # times the bfloat16 weights: latent, gradient, cell and rounded weight in float32, masks and code
ROOM = 0.9  # the share of a GPU's free memory that weights may take; the rest is for the cache of keys and values


def arithmetic() -> str:
    """Where and in what numbers a bfloat16 model computes here: answers of different kinds are never mixed."""
    if torch.cuda.is_available():
        return "cuda"
    return "cpu bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "cpu float32"


def place(model: Any, grown: float = 1.0) -> Any:
    """Onto the GPU if there is one, over several if it is too large for one. A CPU without bfloat16 instructions
    computes in float32.

    grown: how many times its weights the work will hold (training: gradients and moments beside them).

    The weights keep the values they were rounded to; only the arithmetic is finer. On a CPU with AVX2 alone,
    SmolLM2-135M gave 29 tokens a second in bfloat16 and 176 in float32 (batch 64, one thread).
    """
    if torch.cuda.is_available():
        return _on_gpus(model, grown)
    slow = model.dtype == torch.float16 or (model.dtype == torch.bfloat16 and arithmetic() == "cpu float32")
    return model.float() if slow else model


def _on_gpus(model: Any, grown: float) -> Any:
    if next(model.parameters()).device.type == "cuda":
        return model
    torch.cuda.empty_cache()  # what the model before this one has left is free, but not counted so
    size = grown * sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    if size <= ROOM * free[0]:
        return model.to("cuda")
    if size > ROOM * sum(free):
        raise UserError(
            f"GPU memory: the weights and what is kept beside them take {size / 1e9:.1f} GB, {sum(free) / 1e9:.1f} GB "
            f"are free on {len(free)} GPU(s): ask for more (`resources: {{gpu: …}}` of the model's row) or a larger one"
        )
    from accelerate import dispatch_model, infer_auto_device_map

    limits = {index: int(ROOM * room / grown) for index, room in enumerate(free)}
    places = infer_auto_device_map(
        model, max_memory=limits, no_split_module_classes=list(model._no_split_modules or [])
    )
    return dispatch_model(model, places)


def compute_dtype(stored: str) -> str:
    """The dtype to compute in for weights stored in `stored`; what is written keeps the stored one."""
    return "float32" if stored != "float32" and arithmetic() == "cpu float32" else stored
