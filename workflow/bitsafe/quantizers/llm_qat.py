"""LLM-QAT (Liu et al. 2023, arXiv 2305.17888): training with weights, activations and the cache of K and V rounded.

Weights: one symmetric min-max scale a row; activations, keys and values: one a token; straight-through gradients. With
no data the model learns what full precision says of conversations it held with itself (data-free distillation, §2.1).
On a risk set it learns that first, then the answers of the set, by cross-entropy or by distillation (`on_risk`).

The weight grid is compressed-tensors', 2^N levels with scale 2 max|w| / (2^N − 1); the paper's has 2^N − 1 levels with
scale max|w| / (2^(N−1) − 1). Activations follow the paper.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bitsafe.artefacts.activations import Activations, Rule, attach_rules, write_activations
from bitsafe.artefacts.checkpoint import storage_dtype
from bitsafe.artefacts.formats.compressed import write_compressed
from bitsafe.artefacts.load import load_model, load_tokenizer
from bitsafe.data.chat import encode_all
from bitsafe.generate.device import place
from bitsafe.quantizers.base import (
    TRAINED,
    QuantizeJob,
    linears,
    require_bits,
    require_conversations,
    require_params,
    require_value,
    seed_everything,
    source_tensors,
    tensors_now,
)
from bitsafe.quantizers.shared.distillation import distillation
from bitsafe.quantizers.shared.self_generation import converse
from bitsafe.quantizers.shared.training import PARAMS, Settings, body_parameters, token_losses, train
from bitsafe.quantizers.ste import FakeQuantize, attach_fake_quantization, remove_fake_quantization, trained_layer

VERSION = 1
BITS = (8, 4, 3, 2)
BYTES_A_WEIGHT = TRAINED + 4  # the teacher
WHOLE_ROW = -1  # the group size of one scale a row
ON_RISK = ("cross_entropy", "distillation")
OWN_PARAMS = ("activation_bits", "cache_bits", "samples", "tokens", "distill_steps", "on_risk")
FULL = 16  # as activation_bits or cache_bits: not rounded


@dataclass(frozen=True)
class Plan:
    """samples, tokens: conversations the teacher holds with itself, and the length of a turn. on_risk: of ON_RISK."""

    activations: Activations
    samples: int
    tokens: int
    distill: Settings
    risk: Settings
    on_risk: str

    @classmethod
    def of(cls, params: dict[str, Any]) -> "Plan":
        count = {key: params.get(key, default) for key, default in _DEFAULTS.items()}
        on_risk = params.get("on_risk", ON_RISK[0])
        require_value(on_risk in ON_RISK, "on_risk", on_risk, " or ".join(ON_RISK))
        rules = Activations(inputs=_rule(count, "activation_bits"), cache=_rule(count, "cache_bits"))
        risk = Settings.of(params)
        distill = Settings(count["distill_steps"], risk.lr, risk.batch_size)
        return cls(rules, count["samples"], count["tokens"], distill, risk, on_risk)


_DEFAULTS = {"activation_bits": 8, "cache_bits": 4, "samples": 64, "tokens": 32, "distill_steps": 30}


def _rule(count: dict[str, int], key: str) -> Rule | None:
    return None if count[key] == FULL else Rule(count[key], symmetric=True)


def quantize(job: QuantizeJob) -> dict:
    """Write a compressed-tensors artefact and activations.json. params: OWN_PARAMS, steps, lr, batch_size."""
    require_bits(job, BITS)
    require_params(job, (*OWN_PARAMS, *PARAMS))
    plan = Plan.of(job.params)
    if job.conversations:
        require_conversations(job)
    source = source_tensors(job)
    model, facts = trained_model(job, plan)
    export(job, model, source, plan)
    return facts


def trained_model(job: QuantizeJob, plan: Plan) -> tuple[Any, dict[str, Any]]:
    """The model after training, rounding all it will round as an artefact, and facts for the manifest."""
    seed_everything(job.seed)
    teacher, tokenizer = place(load_model(job.source, job.dtype)), load_tokenizer(job.source)
    own = converse(teacher, tokenizer, plan.samples, plan.tokens, job.seed)
    model, soft = place(rounding_model(job, plan), TRAINED / 4), distillation(teacher)
    learned = train(model, body_parameters(model), encode_all(tokenizer, own), plan.distill, job.seed, soft)
    facts = {f"distill_{key}": value for key, value in learned.items() if key.endswith(("loss", "steps"))}
    facts |= {"own_conversations": len(own)}
    if job.conversations:
        losses = token_losses if plan.on_risk == "cross_entropy" else soft
        examples = encode_all(tokenizer, job.conversations)
        facts |= train(model, body_parameters(model), examples, plan.risk, job.seed, losses)
    return model.cpu(), facts


def rounding_model(job: QuantizeJob, plan: Plan) -> Any:
    """The source in float32, computing in every forward pass with what its artefact would hold."""
    model, names, dtype = load_model(job.source, "float32"), list(linears(job)), storage_dtype(job.source)
    attach_fake_quantization(model, names, FakeQuantize(job.bits, WHOLE_ROW, True, dtype))
    attach_rules(model, plan.activations, dict.fromkeys(names))
    body = set(map(id, body_parameters(model)))
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in body and not isinstance(module, parametrize.ParametrizationList):
                parametrize.register_parametrization(module, name, StoredAs(dtype))
    return model


class StoredAs(nn.Module):
    """A parametrization: what stays unquantized (norms, biases) at the precision of the file; gradient: identity."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, weight: Tensor) -> Tensor:
        return weight.detach().to(self.dtype).to(weight.dtype) + (weight - weight.detach())


def export(job: QuantizeJob, model: Any, source: dict[str, Tensor], plan: Plan) -> None:
    """Write what `model` computes with; its parametrizations are taken off."""
    names = list(linears(job))
    layers = [trained_layer(model, name) for name in names]
    remove_fake_quantization(model, names)
    for module in [m for m in model.modules() if parametrize.is_parametrized(m)]:
        for name in list(module.parametrizations):
            parametrize.remove_parametrizations(module, name)  # leaves the rounded value
    others = {name: t for name, t in tensors_now(model, source).items() if name.removesuffix(".weight") not in names}
    write_compressed(job.out, job.source, layers, others, WHOLE_ROW)
    write_activations(job.out, plan.activations)
