"""Architectures other than a Llama with a tied head: what is quantized, what stays, and that it loads again."""

import importlib
import json

import pytest
import torch

from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.check import prove
from bitsafe.artefacts.checkpoint import decoder_linears, read_tensors
from bitsafe.artefacts.load import load_dense, load_model
from bitsafe.errors import UserError
from bitsafe.patches import qresafe
from bitsafe.patches.base import PatchJob
from bitsafe.quantizers import gptq, quip_sharp
from bitsafe.quantizers.base import QuantizeJob

SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
MODELS = {  # transformers' name, and what differs from SIZES
    "llama_untied": ("Llama", {"tie_word_embeddings": False}),
    "llama_biased": ("Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "gemma": ("Gemma", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "gemma2": ("Gemma2", {"tie_word_embeddings": True, "sliding_window": 64}),
    "mistral": ("Mistral", {"tie_word_embeddings": False, "sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False}),
}
METHODS = {
    "rtn": (4, {}),
    "gptq": (4, {}),
    "nf4": (4, {}),
    "qlora": (4, {"rank": 4, "alpha": 8, "steps": 3, "lr": 1e-3, "batch_size": 8}),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory, chat_tokenizer):
    """A random fp16 model of each architecture, biases (zero when made) drawn too."""
    import transformers

    root = tmp_path_factory.mktemp("architectures")
    for name, (family, changes) in MODELS.items():
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**SIZES | changes)
        model = getattr(transformers, f"{family}ForCausalLM")(config)
        for key, tensor in model.named_parameters():
            if key.endswith(".bias"):
                torch.nn.init.normal_(tensor, std=0.5)
        model.half().save_pretrained(root / name)
        chat_tokenizer.save_pretrained(root / name)
    return root


def make(method, source, out, conversations):
    out.mkdir()
    bits, params = METHODS[method]
    job = QuantizeJob(source, out, bits, params, conversations, 3)
    importlib.import_module(f"bitsafe.quantizers.{method}").quantize(job)
    return out


CASES = [(model, method) for model in MODELS for method in METHODS if method != "qlora" or "llama" in model]
CASES += [(model, method) for model in ("qwen2",) for method in ("qlora",)]


@pytest.mark.parametrize(("model", "method"), CASES)
def test_an_artefact_is_proved_and_everything_but_the_decoder_layers_is_kept(
    sources, tmp_path, conversations, model, method
):
    source = sources / model
    out = make(method, source, tmp_path / "out", conversations)
    proof = prove(out, source, {"logit_error": 0.8, "effective_bits": 7.0}, conversations, bits=4)
    assert proof["quantized_layers"] == 14
    before, after = read_tensors(source), read_tensors(out)
    kept = {name for name in before if name.removesuffix(".weight") not in decoder_linears(source)}
    assert all(torch.equal(before[name], after[name]) for name in kept), "norms, embeddings, head and biases"
    assert set(read_layers(out)) == set(decoder_linears(source))
    assert ("lm_head.weight" in after) == ("lm_head.weight" in before)


@pytest.mark.parametrize("model", MODELS)
def test_the_head_of_the_reloaded_artefact_is_the_sources(sources, tmp_path, conversations, model):
    source = sources / model
    tied = bool(json.loads((source / "config.json").read_text()).get("tie_word_embeddings", True))
    assert ("lm_head.weight" in read_tensors(source)) == (not tied)
    whole = load_model(source, "float32")
    for method in METHODS if "llama" in model else ("rtn",):
        found, _ = load_dense(make(method, source, tmp_path / method, conversations), "float32")
        assert (found.lm_head.weight is found.model.embed_tokens.weight) == tied
        assert torch.equal(found.lm_head.weight, whole.lm_head.weight)


@pytest.mark.parametrize("model", ["llama_biased", "qwen2"])
def test_biases_are_kept_and_count_as_no_part_of_a_quantized_weight(sources, tmp_path, conversations, model):
    source = sources / model
    biases = [name for name in read_tensors(source) if name.endswith(".bias")]
    assert len(biases) == {"llama_biased": 14, "qwen2": 6}[model]
    artefact = make("rtn", source, tmp_path / "rtn", conversations)
    model, _ = load_dense(artefact, "float32")
    state, before = model.state_dict(), read_tensors(source)
    assert all(torch.equal(state[name], before[name].float()) for name in biases)
    assert prove(artefact, source, {}, conversations, bits=4)["effective_bits"] == 4 + (16 + 4) / 64


OTHERS = ("awq", "quik", "quip_sharp", "llm_int8", "ste")


@pytest.mark.parametrize("model", ["gemma", "mistral", "qwen2"])
@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_on_other_architectures(sources, tmp_path, conversations, model, method):
    bits = 8 if method == "llm_int8" else 4
    params = {"steps": 2, "lr": 1e-5, "batch_size": 8} if method == "ste" else {"grid": 3} if method == "awq" else {}
    (tmp_path / "out").mkdir()
    job = QuantizeJob(sources / model, tmp_path / "out", bits, params, conversations, 3)
    importlib.import_module(f"bitsafe.quantizers.{method}").quantize(job)
    proof = prove(tmp_path / "out", sources / model, {"logit_error": 0.8}, conversations, bits=bits)
    assert proof["quantized_layers"] == 14 and proof["weight_error"] < 0.3


@pytest.mark.parametrize("model", MODELS)
def test_a_patch_on_other_architectures(sources, tmp_path, conversations, model):
    """Q-resafe moves codes in every layer, writes what it trained, and leaves biases and norms as they are."""
    cell, folder = make("rtn", sources / model, tmp_path / "cell", conversations), tmp_path / "patched"
    folder.mkdir()
    answers = iter([["Sorry, I cannot help."] * 8, ["Lift the latch and walk in."] * 8])
    params = {"steps": 4, "lr": 0.5, "batch_size": 4, "refresh_every": 2, "gradient_checkpointing": True}
    rows = [row | {"messages": row["messages"][:-1]} for row in conversations[:8]]
    generate = lambda *_, **__: next(answers)  # noqa: E731
    job = PatchJob(cell, sources / model, folder / "artefact", rows, params, 0, "float32", generate)
    (folder / "artefact").mkdir()
    facts = qresafe.patch(job)
    assert facts["pairs"]["refuse_comply"] == 8 and facts["export_error"] < 1e-6 and facts["last_loss"] > 0
    before, after = read_layers(cell), read_layers(job.out)
    assert all((after[name].codes != layer.codes).any() for name, layer in before.items())
    changed = {
        name for name, tensor in read_tensors(cell).items() if not torch.equal(tensor, read_tensors(job.out)[name])
    }
    assert {name.removesuffix(".weight_packed") for name in changed} == set(before)
    assert prove(job.out, sources / model, {}, conversations, bits=4)["quantized_layers"] == 14


def test_gemmas_norms_survive_a_bfloat16_run(sources, tmp_path, conversations):
    """They are 1 + w: a library that adds the 1 in 16 bits and takes it off again would change them."""
    (tmp_path / "out").mkdir()
    gptq.quantize(QuantizeJob(sources / "gemma", tmp_path / "out", 4, {}, conversations, 3, "bfloat16"))
    before, after = read_tensors(sources / "gemma"), read_tensors(tmp_path / "out")
    assert all(torch.equal(before[name], after[name]) for name in before if "norm" in name)


def test_blocks_of_several_kinds_are_refused_by_methods_that_walk(sources, tmp_path, conversations):
    with pytest.raises(UserError, match=r"Gemma2ForCausalLM: blocks of several kinds \(full_attention, sliding"):
        quip_sharp.quantize(QuantizeJob(sources / "gemma2", tmp_path, 4, {}, conversations, 3))
