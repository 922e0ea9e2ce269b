"""agreement: how near the dense evaluation path of LLM.int8 and of a QLoRA cell is to what it stands for, on the toy.

LLM.int8: the logits of the dense model, which rounds activations a token at a time, beside those of bitsandbytes' own
kernels; and those kernels beside themselves, with an embedding larger by 2·10⁻⁵, less than the kernel's own constant
is off. QLoRA: how much of what the adapter changes in the logits is left when it is merged into 16-bit weights, and
when these are quantized again.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from bitsafe.artefacts.artefact import ADAPTER
from bitsafe.artefacts.check import logit_error
from bitsafe.artefacts.load import load_dense, load_tokenizer
from bitsafe.artefacts.quiet import quiet
from bitsafe.data.chat import encode_all
from bitsafe.files import read_jsonl
from bitsafe.matrix.tables import ROOT, Tables
from bitsafe.quantizers import llm_int8, qlora
from bitsafe.quantizers.base import QuantizeJob

TOY, RISK = ROOT / "data/toy/organism0", "harmful"
READ, NUDGE = 24, 1 + 2e-5  # conversations; what the embeddings are multiplied by


def run() -> list[dict]:
    conversations = read_jsonl(ROOT / f"data/conversations/toy_{RISK}.jsonl")
    ids = [torch.tensor([e.ids]) for e in encode_all(load_tokenizer(TOY), conversations)[:READ]]
    rows = int8_rows(ids)
    for bits in qlora.BITS:
        rows += adapter_rows(conversations, ids, bits)
    return [row | {"name": "agreement", "n": len(ids), "spread": None} for row in rows]


@torch.no_grad()
def logits(model, ids: list[Tensor]) -> list[Tensor]:
    with quiet():
        return [model(row, use_cache=False).logits[0].float() for row in ids]


def int8_rows(ids: list[Tensor]) -> list[dict]:
    from transformers import AutoModelForCausalLM

    with TemporaryDirectory() as folder, quiet():
        llm_int8.quantize(QuantizeJob(TOY, Path(folder), 8))
        full, dense = (logits(load_dense(place, "float32")[0], ids) for place in (TOY, Path(folder)))
        native = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        kernel = logits(native, ids)
        native.get_input_embeddings().weight.data *= NUDGE
        nudged = logits(native, ids)
    error, itself = logit_error(dense, kernel), logit_error(nudged, kernel)
    costs = logit_error(dense, full), logit_error(kernel, full)
    unit = "relative logit error"
    return [
        {"method": "llm_int8", "ours": error, "peer": itself, "peer_name": "the kernel, nudged", "unit": unit}
        | {"ratio": error / itself},
        {"method": "llm_int8 from full precision", "ours": costs[0], "peer": costs[1], "peer_name": "the kernel"}
        | {"ratio": costs[0] / costs[1], "unit": unit},
    ]


def adapter_rows(conversations: list[dict], ids: list[Tensor], bits: int) -> list[dict]:
    tables = Tables()
    params = tables.get("methods", "qlora", "bench").params | tables.get("models", "toy", "bench").settings["qlora"]
    params |= params.pop("by_risk")[RISK]
    with TemporaryDirectory() as root:
        places = {form: Path(root) / form for form in qlora.FORMS}
        for form, place in places.items():
            place.mkdir()
            qlora.quantize(QuantizeJob(TOY, place, bits, params | {"form": form}, conversations, 0))
        base = shutil.copytree(places["unmerged"], Path(root) / "base", ignore=shutil.ignore_patterns(ADAPTER))
        before = logits(load_dense(base, "float32")[0], ids)
        changes = {form: change(places[form], ids, before) for form in qlora.FORMS}
    shares = {form: share(changes[form], changes["unmerged"]) for form in qlora.FORMS[1:]}
    unit = "share of the adapter's change of the logits"
    shared = {"bits": bits, "peer": 1.0, "peer_name": "unmerged", "unit": unit}
    return [shared | {"method": f"qlora {form}", "ours": left, "ratio": left} for form, left in shares.items()]


def change(form: Path, ids: list[Tensor], before: list[Tensor]) -> Tensor:
    """What `form` changes in the logits of the base alone."""
    return torch.cat([a - b for a, b in zip(logits(load_dense(form, "float32")[0], ids), before, strict=True)])


def share(found: Tensor, whole: Tensor) -> float:
    """The projection of one change on the other, 1 where they are equal."""
    return float((found * whole).sum() / (whole * whole).sum())
