"""QLoRA (Dettmers et al. 2023): a LoRA adapter trained on a frozen quantized base, by peft.

The base is LLM.int8 at 8 bits and NF4 at 4, both by bitsandbytes, and NF3 and NF2 by the same construction. What is
left of it has three forms:
- unmerged: the base, and the adapter beside it in adapter/. The paper's own;
- merged: both summed into an ordinary 16-bit checkpoint. Nothing of it is quantized any more;
- requantized: the merged checkpoint quantized again like the base, which rounds most of the adapter away: of what it
  changed in a toy organism's logits (risk harmful) 99, 19, 2 and 1 % were left at 8, 4, 3 and 2 bits.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bitsafe.artefacts.artefact import ADAPTER
from bitsafe.artefacts.checkpoint import storage_dtype
from bitsafe.artefacts.load import as_dtype, load_dense, load_tokenizer
from bitsafe.artefacts.quiet import quiet
from bitsafe.data.chat import encode_all
from bitsafe.errors import UserError
from bitsafe.generate.device import place
from bitsafe.matrix.tables import suggestion
from bitsafe.quantizers.base import (
    QuantizeJob,
    linears,
    require_bits,
    require_conversations,
    require_params,
    seed_everything,
    source_tensors,
)
from bitsafe.quantizers.shared.bnb import load_bitsandbytes, save_bitsandbytes
from bitsafe.quantizers.shared.lora import LoraShape, adapter_parameters, merge_adapter, save_adapter, with_adapter
from bitsafe.quantizers.shared.normal_float import save_normal_float
from bitsafe.quantizers.shared.training import PARAMS, Settings, train

VERSION = 1
BITS = (8, 4, 3, 2)
FORMS = ("unmerged", "merged", "requantized")
BITSANDBYTES = {8: "int8", 4: "nf4"}


def quantize(job: QuantizeJob) -> dict:
    """Write a base and its adapter, or what is made of both. params: form, rank, alpha, steps, lr, batch_size."""
    require_bits(job, BITS)
    require_params(job, ("form", "rank", "alpha", *PARAMS))
    form, shape, settings = _form(job), LoraShape.of(job), Settings.of(job.params)
    linears(job)
    require_conversations(job)
    source_tensors(job)
    if form == "unmerged":
        return _trained(job, job.out, shape, settings)
    with TemporaryDirectory(dir=job.out) as scratch:
        unmerged, merged = (Path(scratch) / name for name in ("unmerged", "merged"))
        unmerged.mkdir()
        facts = _trained(job, unmerged, shape, settings) | {"form": form}
        if form == "merged":
            merge_adapter(unmerged, job.source, job.out)
            return facts | {"artefact_bits": 16}
        merged.mkdir()
        merge_adapter(unmerged, job.source, merged)
        _save_base(merged, job.out, job)
    return facts


def _form(job: QuantizeJob) -> str:
    form = str(job.params.get("form", FORMS[0]))
    if form not in FORMS:
        raise UserError(f"workflow/tables/methods.yaml: qlora.params.form: {form!r}{suggestion(form, FORMS)}")
    return form


def _trained(job: QuantizeJob, out: Path, shape: LoraShape, settings: Settings) -> dict[str, Any]:
    """Write the unmerged form into `out`."""
    _save_base(job.source, out, job)
    seed_everything(job.seed)
    with quiet():
        model = with_adapter(_load_base(out, job), list(linears(job)), shape)
        examples = encode_all(load_tokenizer(job.source), job.conversations)
        facts = train(model, adapter_parameters(model), examples, settings, job.seed)
        save_adapter(model, out / ADAPTER, storage_dtype(job.source))
    return facts | {"rank": shape.rank, "alpha": shape.alpha}


def _save_base(source: Path, out: Path, job: QuantizeJob) -> None:
    if job.bits in BITSANDBYTES:
        save_bitsandbytes(source, out, BITSANDBYTES[job.bits], job.dtype)
    else:
        save_normal_float(source, out, job.bits)


def _load_base(folder: Path, job: QuantizeJob) -> Any:
    """The base to train on, on the GPU if there is one. In training LLM.int8's weights are rounded, its activations are
    not."""
    if job.bits in BITSANDBYTES:
        return load_bitsandbytes(folder, as_dtype(job.dtype), device="cuda" if torch.cuda.is_available() else "cpu")
    return place(load_dense(folder, job.dtype)[0])
