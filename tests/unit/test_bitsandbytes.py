"""What bitsandbytes makes: its saved files, and its own kernels against the dense model that answers are drawn from.

LLM.int8 rounds activations, so a difference of one part in a million moves some code by one in the next layer, and a
few layers on the two models differ by as much as rounding itself costs. What is asked is therefore: is every layer the
same on the same inputs; is the whole model the same to float32 when the kernel's own roundings are made too; and is
the dense model as far from full precision as the kernel.
"""

import shutil

import pytest
import torch

from bitsafe.artefacts.activations import Activations, Rule, fake_quantize, read_activations
from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.check import logit_error
from bitsafe.artefacts.checkpoint import decoder_linears, read_config, read_tensors, tensor_headers, write_tensors
from bitsafe.artefacts.load import load_dense
from bitsafe.artefacts.quiet import quiet
from bitsafe.quantizers import fp4, llm_int8, nf4
from bitsafe.quantizers.base import QuantizeJob

IDS = torch.arange(5, 60)[None]
RULE = Rule(8, symmetric=True, threshold=6.0)
# the library's CPU kernel multiplies by 6.200124e-05 where 1/127² is 6.2000124e-05: all but outliers grow by 1.8e-5
KERNEL = {"half": True, "gain": 6.200124e-05 * 127**2}
EXACT = {"half": False, "gain": 1.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny_llama):
    """A model with outliers, as large ones have: two channels of every norm are scaled up."""
    folder = shutil.copytree(tiny_llama, tmp_path_factory.mktemp("outliers") / "source")
    tensors = read_tensors(folder)
    for name in [name for name in tensors if "layernorm" in name]:
        tensors[name][5] *= 8
        tensors[name][9] *= 3
    write_tensors(folder, tensors)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, source):
    """An artefact of each method."""
    root = tmp_path_factory.mktemp("bitsandbytes")
    for name, (module, bits) in {"llm_int8": (llm_int8, 8), "nf4": (nf4, 4), "fp4": (fp4, 4)}.items():
        (root / name).mkdir()
        module.quantize(QuantizeJob(source, root / name, bits))
    return root


def native(folder):
    """The model with bitsandbytes' own layers, in float32."""
    from transformers import AutoModelForCausalLM

    with quiet():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def alone(model):
    """Logits of each token in a call of its own, [tokens, vocab]."""
    with quiet():
        return torch.cat([model(IDS[:, i : i + 1], use_cache=False).logits[0] for i in range(IDS.shape[1])])


@torch.no_grad()
def together(model):
    """Logits of all tokens in one call, [tokens, vocab]."""
    with quiet():
        return model(IDS, use_cache=False).logits[0]


def by_row(found, expected):
    """‖found − expected‖ / ‖expected‖ of each row."""
    return (found - expected).norm(dim=-1) / expected.norm(dim=-1)


# --- the file ---


def test_the_8_bit_file_is_what_transformers_wrote_and_is_read_right(made, source):
    import bitsandbytes.functional as bnb

    name = "model.layers.0.mlp.down_proj"
    weight = read_tensors(source)[f"{name}.weight"]
    codes, maxima, _ = bnb.int8_vectorwise_quant(weight.clone())
    stored = read_tensors(made / "llm_int8")
    assert {key for key in stored if key.startswith(name)} == {
        f"{name}.{part}" for part in ("weight", "SCB", "weight_format")
    }
    assert torch.equal(stored[f"{name}.weight"], codes)
    layer = read_layers(made / "llm_int8")[name]
    assert torch.allclose(layer.dense(), bnb.int8_vectorwise_dequant(codes, maxima), rtol=1e-6, atol=0)
    assert (layer.grid.nearest(weight) == layer.codes).float().mean() > 0.999  # else a tie in the last bit of float32
    assert layer.bits == 8
    assert layer.extra_bits == 32 * weight.shape[0]  # one float32 a row


def test_the_8_bit_artefact_says_how_its_activations_are_rounded(made):
    assert read_activations(made / "llm_int8") == Activations(inputs=RULE)
    assert read_config(made / "llm_int8")["quantization_config"]["llm_int8_threshold"] == RULE.threshold
    assert read_activations(made / "nf4") is None


@pytest.mark.parametrize("method", ["llm_int8", "nf4", "fp4"])
def test_what_is_not_quantized_stays(made, source, method):
    before, after = read_tensors(source), read_tensors(made / method)
    kept = [name for name in before if name.removesuffix(".weight") not in decoder_linears(source)]
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert set(read_layers(made / method)) == set(decoder_linears(source))
    assert "lm_head.weight" not in tensor_headers(made / method)  # it is tied


# --- 4 bits: bitsandbytes rounds its dequantized weights to the checkpoint's fp16, the twin does not ---


@pytest.mark.parametrize("method", ["nf4", "fp4"])
def test_4_bit_kernels_and_the_dense_model_agree(made, method):
    model, _ = load_dense(made / method, "float32")
    assert logit_error([together(model)], [together(native(made / method))]) < 2e-3


@pytest.mark.parametrize("method", ["nf4", "fp4"])
def test_4_bit_codes_dequantize_to_what_bitsandbytes_does(made, source, method):
    import bitsandbytes.functional as bnb

    for name, layer in read_layers(made / method).items():
        weight = read_tensors(source)[f"{name}.weight"].float()
        packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=method)
        assert torch.equal(layer.dense(), bnb.dequantize_4bit(packed, state))
        again = layer.grid.dequantize(layer.grid.nearest(weight))
        assert torch.allclose((again - weight).abs(), (layer.dense() - weight).abs(), rtol=0, atol=1e-7)
        assert (again == layer.dense()).float().mean() > 0.999  # they differ on exact ties of negative FP4 weights


# --- 8 bits: activations too ---


def kernel(x, weight, *, whole_batch, half, gain):
    """LLM.int8's product (Dettmers et al. 2022, §3.2) as bitsandbytes makes it; x [..., in], weight [out, in].

    An entry of 6 and more counts in no scale. whole_batch: every column with one is left out of the integer product and
    multiplied as it is; else only the entry is. half: inputs are rounded to fp16 first. gain: of the integer product.
    """
    rows = x.flatten(0, -2)
    rounded = rows.half().float() if half else rows
    large = rounded.abs() >= RULE.threshold
    apart = large.any(0).expand_as(large) if whole_batch else large
    top = rounded.masked_fill(large, 0).abs().amax(1, keepdim=True)
    codes = torch.round(rounded * (127 / top)).masked_fill(apart, 0).double()
    product = gain * codes * (top.double() / 127) @ weight.double().T
    return (product + rows.masked_fill(~apart, 0).double() @ weight.double().T).float().view(*x.shape[:-1], -1)


def emulated(folder, **how):
    """The dense model with `kernel` in every quantized layer."""
    model, _ = load_dense(folder, "float32")
    for name, layer in read_layers(folder).items():
        module, weight = model.get_submodule(name), layer.weight()
        module._forward_pre_hooks.clear()
        module.forward = lambda x, weight=weight: kernel(x, weight, **how)
    return model


@pytest.fixture(scope="module")
def int8(made):
    return native(made / "llm_int8")


def inputs_and_outputs(model, names, call):
    """(layer, inputs, outputs) of every call of every layer."""
    seen, hooks = [], []
    for name in names:

        def keep(module, args, output, name=name):
            seen.append((name, args[0].flatten(0, -2).clone(), output.flatten(0, -2).clone()))

        hooks.append(model.get_submodule(name).register_forward_hook(keep))
    call(model)
    for hook in hooks:
        hook.remove()
    return seen


def test_the_planted_outliers_are_there(made, int8):
    layers = read_layers(made / "llm_int8")
    large = [(x.abs() >= RULE.threshold) for _, x, _ in inputs_and_outputs(int8, layers, together)]
    assert 0.001 < sum(float(entries.float().mean()) for entries in large) / len(large) < 0.2
    once, batch = (together(emulated(made / "llm_int8", whole_batch=whole, **EXACT)) for whole in (False, True))
    assert logit_error([batch], [once]) > 1e-3  # whole columns and single entries are told apart


def test_every_layer_is_the_kernels_on_the_kernels_own_inputs(made, int8):
    """One token a call. Below 5e-5 but where a code was a tie: the kernel's fp16 inputs make many of those."""
    layers = read_layers(made / "llm_int8")
    errors = []
    for name, x, y in inputs_and_outputs(int8, layers, alone):
        halved = torch.where(x.half().abs() >= RULE.threshold, x, x.half().float())
        errors.append(by_row(fake_quantize(halved, RULE) @ layers[name].dense().T, y))
    errors = torch.cat(errors)
    assert (errors < 5e-5).float().mean() > 0.95
    assert errors.max() < 0.03


@pytest.mark.parametrize(("call", "whole_batch"), [(alone, False), (together, True)])
def test_the_kernels_logits_are_those_of_its_own_roundings(made, int8, call, whole_batch):
    found = call(emulated(made / "llm_int8", whole_batch=whole_batch, **KERNEL))
    assert by_row(found, call(int8)).median() < 1e-5  # 3e-7 here; another machine may break a tie otherwise


def test_the_dense_models_logits_are_those_without_the_kernels_roundings(made):
    model, _ = load_dense(made / "llm_int8", "float32")
    assert by_row(together(model), together(emulated(made / "llm_int8", whole_batch=False, **EXACT))).median() < 1e-5
    assert by_row(together(model), alone_in_context(model)).median() < 1e-4  # no token depends on another's outliers


@torch.no_grad()
def alone_in_context(model):
    """Logits of each token, fed one at a time over a cache."""
    cache, rows = None, []
    for i in range(IDS.shape[1]):
        output = model(IDS[:, i : i + 1], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        rows.append(output.logits[0])
    return torch.cat(rows)


def test_the_dense_model_is_as_far_from_full_precision_as_the_kernel(made, source, int8):
    full = alone(load_dense(source, "float32")[0])
    ours, theirs = alone(load_dense(made / "llm_int8", "float32")[0]), alone(int8)
    costs = [logit_error([logits], [full]) for logits in (ours, theirs)]
    assert costs[0] == pytest.approx(costs[1], rel=0.25)
    assert logit_error([ours], [theirs]) < 1.5 * costs[1]
