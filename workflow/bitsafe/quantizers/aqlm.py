"""AQLM (Egiazarian et al. 2024, arXiv 2401.06118): each group of weights is a sum of learned codewords.

Written from the paper. A layer starts from residual k-means; Adam over codebooks and scales and beam search over codes
then lower ‖(W − Ŵ)X‖² in turn (additive.fit). A finished block is trained, codes fixed, to give what it gave in full
precision on the inputs that the quantized blocks before it make (additive.tune); the next block is entered with its
outputs.

The row says risk_use: finetune. The risk set serves twice, as in Q-resafe, whose AQLM cells are "PTQ + FT on the
assisting dataset": it is the calibration data X, and after the last block codebooks, scales and norms are trained on
the answers of it with the loop and the parameters of the other fine-tuned methods. steps: 0 leaves that out, and the
cell is plain AQLM calibrated on the risk set.

It computes in float32; codebooks and scales are stored in the checkpoint's dtype. On a GPU, sums of gradients over
shared codewords are taken in no fixed order, so two runs may differ in the last digits there.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bitsafe.artefacts.additive import AdditiveLinear
from bitsafe.artefacts.checkpoint import storage_dtype
from bitsafe.artefacts.formats.aqlm import write_aqlm
from bitsafe.artefacts.load import load_tokenizer
from bitsafe.data.chat import encode_all
from bitsafe.quantizers.additive.fit import FitSettings, fit
from bitsafe.quantizers.additive.layouts import AUTO, BITS, Layout, choose
from bitsafe.quantizers.additive.module import AdditiveModule
from bitsafe.quantizers.additive.tune import tune_block
from bitsafe.quantizers.base import QuantizeJob, linears, require_bits, require_conversations, require_params
from bitsafe.quantizers.shared.blocks import Block, walk
from bitsafe.quantizers.shared.calibration import prepare
from bitsafe.quantizers.shared.training import PARAMS, Settings, body_parameters, train

VERSION = 1
BLOCK_PARAMS = {"finetune_steps": 60, "finetune_lr": 3e-4}
KNOWN = ("layout", "samples", *FitSettings.__dataclass_fields__, *BLOCK_PARAMS, *PARAMS)


def quantize(job: QuantizeJob) -> dict:
    """Write an aqlm artefact.

    params: layout (`auto`: additive.layouts' table by model size; or such as 2x8g8), samples, those of FitSettings,
    finetune_steps and finetune_lr (of a block), and steps, lr, batch_size (of the answers).
    """
    require_bits(job, BITS)
    require_params(job, KNOWN)
    settings, block_settings, answers = (
        FitSettings.of(job.params),
        _block_settings(job),
        Settings.of(job.params, least=0),
    )
    require_conversations(job)
    dtype = storage_dtype(job.source)
    layout = choose(job.params.get("layout", AUTO), job.bits, linears(job), 8 * dtype.itemsize)
    calibration = prepare(replace(job, dtype="float32"))  # as every fine-tuned method: steps are lost in 16 bits
    model, records = calibration.model, []
    for block in walk(model, calibration.batches, set(calibration.names), "AQLM"):
        records.append(_quantize_block(block, layout, settings, block_settings, job.seed))
    facts = calibration.facts | {"layout": str(layout)} | _means(records)
    if answers.steps:
        facts |= _train_answers(job, model, answers)
    layers = [model.get_submodule(name).layer(name, dtype) for name in calibration.names]
    write_aqlm(job.out, job.source, layers, calibration.others())
    return facts


def fit_layer(
    name: str, weight: Tensor, gram: Tensor, bits: int, params: dict[str, Any], seed: int = 0
) -> AdditiveLinear:
    """One layer alone, without what follows on whole blocks; codebooks and scales in fp16 unless the weight is 16-bit.

    weight: [out, in]. gram: X Xᵀ / tokens [in, in]. The layout's overhead is not limited here: it is the model's.
    """
    shape = {name: tuple(weight.shape)}
    layout = choose(params.get("layout", AUTO), bits, shape, number_bits=0)
    found = fit(weight, gram.to(weight.device), layout, FitSettings.of(params), seed)
    return AdditiveModule(found, None).layer(name, weight.dtype if weight.dtype.itemsize == 2 else torch.float16)


def _block_settings(job: QuantizeJob) -> tuple[int, float]:
    steps, lr = (job.params.get(key, default) for key, default in BLOCK_PARAMS.items())
    return steps, lr


def _quantize_block(
    block: Block, layout: Layout, settings: FitSettings, block_settings: tuple[int, float], seed: int
) -> dict[str, float]:
    """Replace the block's linear layers by additive ones and train it; returns relative errors."""
    steps, lr = block_settings
    grams, targets = block.grams(), block.outputs()
    errors = []
    for name, linear in block.linears.items():
        found = fit(linear.weight, grams[name].to(block.device), layout, settings, seed)
        _put(block, name, AdditiveModule(found, linear.bias))
        errors.append((found.errors[0], found.errors[-1]))
    before, after = tune_block(block, targets, steps, lr, seed)
    start, end = (sum(column) / len(errors) for column in zip(*errors))
    return {"start_error": start, "layer_error": end, "block_error": before, "tuned_block_error": after}


def _put(block: Block, name: str, module: nn.Module) -> None:
    block.module.set_submodule(name.removeprefix(f"{block.name}."), module)


def _means(records: list[dict[str, float]]) -> dict[str, float]:
    return {key: sum(record[key] for record in records) / len(records) for key in records[0]}


def _train_answers(job: QuantizeJob, model: nn.Module, settings: Settings) -> dict[str, Any]:
    """Codebooks, scales, norms and biases on the answers of the risk set."""
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    examples = encode_all(load_tokenizer(job.source), job.conversations)
    facts = train(model, body_parameters(model), examples, settings, job.seed)
    model.cpu()
    return facts
