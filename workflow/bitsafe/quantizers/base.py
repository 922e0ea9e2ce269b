"""What every quantizer is given, and what is wrong with it before any work starts."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from bitsafe.artefacts.checkpoint import decoder_linears, read_tensors, tensor_headers
from bitsafe.errors import UserError
from bitsafe.matrix.tables import suggestion
from bitsafe.quantizers.values import fault_of

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class QuantizeJob:
    """One artefact to make. conversations: the risk set, [] at risk `none`. out: an empty folder to fill."""

    source: Path
    out: Path
    bits: int
    params: dict[str, Any] = field(default_factory=dict)
    conversations: list[dict] = field(default_factory=list)
    seed: int = 0
    dtype: str = "float32"

    @property
    def group_size(self) -> int:
        """Input columns that share a scale; −1 is the whole row."""
        return int(self.params.get("group_size", 64))

    @property
    def symmetric(self) -> bool:
        return bool(self.params.get("symmetric", False))


def require_bits(job: QuantizeJob, supported: tuple[int, ...]) -> None:
    """UserError when the method cannot do these bits."""
    if job.bits not in supported:
        known = ", ".join(map(str, supported))
        raise UserError(f"workflow/tables/methods.yaml: bits: {job.bits} is not supported here, only {known}")


def require_params(job: QuantizeJob, known: tuple[str, ...]) -> None:
    """UserError when a parameter is not one of the method's, or its value is of no use (bitsafe.quantizers.values)."""
    for name, value in job.params.items():
        if name not in known:
            raise UserError(f"workflow/tables/methods.yaml: params.{name}: unknown{suggestion(name, known)}")
        if wanted := fault_of(name, value):
            require_value(False, name, repr(value), wanted)


def require_value(holds: bool, key: str, value: Any, wanted: str) -> None:
    """UserError when a parameter's value is not one that the method can use."""
    if not holds:
        raise UserError(f"workflow/tables/methods.yaml: params.{key}: {value}: {wanted} is needed")


def require_conversations(job: QuantizeJob) -> None:
    """UserError when the risk set is missing, or a row of it has nothing to learn from."""
    if not job.conversations:
        raise UserError("risk_sets: this method needs a risk set and was given none: name one in the models table")
    for row in job.conversations:
        messages = row.get("messages") or []
        if not any(m["role"] == "assistant" and m["content"].strip() for m in messages):
            raise UserError(f"risk set, row {row.get('id', '?')}: no assistant answer in it: mend or remove that row")


def require_groups(job: QuantizeJob) -> None:
    """UserError when the group size does not divide the input width of some decoder layer."""
    widths = {name: shape[1] for name, shape in linears(job).items()}
    bad = [(name, width) for name, width in widths.items() if job.group_size != -1 and width % job.group_size]
    if bad:
        fits = [size for size in (128, 64, 32, 16) if not any(width % size for width in widths.values())]
        raise UserError(
            f"workflow/tables/methods.yaml: group_size: {job.group_size} does not divide the {bad[0][1]} inputs of "
            f"{bad[0][0]}; these do: {', '.join(map(str, [*fits, -1]))}"
        )


def linears(job: QuantizeJob) -> dict[str, tuple[int, int]]:
    """The layers to quantize; none at all is a UserError."""
    found = decoder_linears(job.source)
    if not found:
        raise UserError(f"{job.source}: no decoder layer found in it (tensors named *.layers.N.*.weight)")
    return found


def source_tensors(job: QuantizeJob) -> dict[str, Tensor]:
    """Every tensor of the source; one that is not finite is a UserError that names it."""
    tensors = read_tensors(job.source)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{job.source}: {name} holds NaN or infinity: fetch the checkpoint again")
    return tensors


TRAINED = 16  # bytes a weight that is trained in float32: itself, its gradient and Adam's two moments


def require_memory(job: QuantizeJob, bytes_a_weight: int | None = None) -> None:
    """UserError when what the method surely holds at once does not fit what memory is free.

    That is the checkpoint as it is stored, and bytes_a_weight of the model in memory (None: one copy in job.dtype); of
    what a GPU works on, a float32 copy at most passes through here. Activations come on top.
    """
    headers = tensor_headers(job.source).values()
    each = bytes_a_weight or torch.finfo(getattr(torch, job.dtype)).bits // 8
    each = min(each, 4) if torch.cuda.is_available() else each
    need = sum(math.prod(shape) * each + stored for shape, stored in headers)
    if need > (free := free_memory()):
        raise UserError(
            f"{job.source}: this method needs {need / 1e9:.1f} GB at least, {free / 1e9:.1f} GB of memory "
            "are free: close other jobs, or use a machine with more"
        )


def free_memory() -> int:
    """Bytes this process may still take: what the machine has free, or what its control group leaves it."""
    free, limit, used = psutil.virtual_memory().available, *(CGROUP / name for name in ("memory.max", "memory.current"))
    if limit.exists() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - int(used.read_text()))
    return free


def seed_everything(seed: int) -> None:
    """Fix torch's random numbers; nothing else draws any."""
    torch.manual_seed(seed)


def tensors_now(model: nn.Module, source: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `source` as `model` has them now, on the CPU, under the same names and in the same dtypes.

    Two names of one tensor (a tied head that is stored too) get a copy each: a safetensors file shares nothing.
    """
    state, seen, found = model.state_dict(), set(), {}
    for name, old in source.items():
        if name in state:
            now = state[name].detach().to(old.dtype).cpu()
            found[name] = now.clone() if now.data_ptr() in seen else now
            seen.add(now.data_ptr())
    return found
