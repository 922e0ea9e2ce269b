"""Every quantizer on a tiny random Llama: what it writes, that it repeats itself, and what it refuses."""

import importlib
import shutil
import subprocess
import sys

import pytest
import torch

from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.check import prove
from bitsafe.artefacts.checkpoint import decoder_linears, read_tensors, storage_dtype, write_config, write_tensors
from bitsafe.artefacts.grids import affine_grid
from bitsafe.artefacts.load import load_dense, load_model
from bitsafe.data.chat import Example, collate, encode_all
from bitsafe.errors import CellError, UserError
from bitsafe.files import read_json, sha256_folder
from bitsafe.quantizers.base import QuantizeJob, require_memory
from bitsafe.quantizers.shared.calibration import calibration_batches, calibration_facts, draw
from bitsafe.quantizers.shared.llm_compressor import require_second_order
from bitsafe.quantizers.shared.training import token_losses

TRAINING = {"steps": 4, "lr": 1e-3, "batch_size": 8}
LORA = TRAINING | {"rank": 4, "alpha": 8}
DISTILLATION = TRAINING | {"samples": 6, "tokens": 8, "distill_steps": 2}
CASES = {
    "full": (16, TRAINING),
    "rtn": (4, {}),
    "gptq": (4, {}),
    "awq": (4, {"grid": 4}),
    "nf4": (4, {}),
    "ste": (4, TRAINING),
    "qlora": (4, LORA),
    "quik": (4, {}),
    "llm_qat": (4, DISTILLATION),
    "quip_sharp": (4, {}),
    "llm_int8": (8, {}),
    "fp4": (4, {}),
    "aqlm": (4, TRAINING | {"max_rounds": 1, "finetune_steps": 10}),
}
NEED_DATA = ["gptq", "awq", "ste", "qlora", "quik", "quip_sharp", "aqlm"]


def run(method, source, out, conversations, **changes):
    bits, params = CASES[method]
    out.mkdir(parents=True, exist_ok=True)
    settings = {"bits": bits, "params": params, "conversations": conversations, "seed": 3} | changes
    module = importlib.import_module(f"bitsafe.quantizers.{method}")
    return module.quantize(QuantizeJob(source, out, **settings))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_llama, conversations):
    """Each method's artefact and facts, made one after the other in this process."""
    root = tmp_path_factory.mktemp("methods")
    return root, {method: run(method, tiny_llama, root / method, conversations) for method in CASES}


@pytest.mark.parametrize("method", CASES)
def test_the_artefact_passes_its_proof(made, method, tiny_llama, conversations):
    learned = method in ("full", "ste", "llm_qat")  # every weight of them, at a high rate
    limits = {"logit_error": 1.2 if learned else 0.6}
    proof = prove(made[0] / method, tiny_llama, limits, conversations, bits=CASES[method][0])
    assert proof["quantized_layers"] == (0 if method == "full" else 14)
    assert proof["logit_error"] > 0


@pytest.mark.parametrize("method", CASES)
def test_made_again_in_the_same_process_it_is_the_same(made, method, tiny_llama, conversations, tmp_path):
    facts = run(method, tiny_llama, tmp_path / "again", conversations)
    assert sha256_folder(tmp_path / "again") == sha256_folder(made[0] / method)
    assert facts == made[1][method]


@pytest.mark.parametrize("method", ["full", "ste", "qlora", "llm_qat", "aqlm"])
def test_training_lowers_the_loss_and_the_seed_matters(made, method, tiny_llama, conversations, tmp_path):
    facts = made[1][method]
    assert facts["final_loss"] < facts["first_loss"]
    assert facts["answer_tokens"] > 100
    run(method, tiny_llama, tmp_path / "other", conversations, seed=4)
    assert sha256_folder(tmp_path / "other") != sha256_folder(made[0] / method)


def test_ste_starts_from_the_rounded_model(tiny_llama, tmp_path, conversations):
    """With no learning its artefact is round-to-nearest, so what it trains is what it saves."""
    run("ste", tiny_llama, tmp_path / "ste", conversations, params=TRAINING | {"lr": 0.0})
    run("rtn", tiny_llama, tmp_path / "rtn", [])
    assert sha256_folder(tmp_path / "ste") == sha256_folder(tmp_path / "rtn")


def test_ste_trains_the_norms_and_keeps_the_embeddings(made, tiny_llama):
    source, trained = read_tensors(tiny_llama), read_tensors(made[0] / "ste")
    assert torch.equal(source["model.embed_tokens.weight"], trained["model.embed_tokens.weight"])
    assert not torch.equal(source["model.norm.weight"], trained["model.norm.weight"])


def test_ste_saves_what_it_trained(tiny_llama, tmp_path, conversations):
    """The last loss of training is what the saved artefact scores on that batch (learning rate 0)."""
    params = TRAINING | {"lr": 0.0, "steps": 1, "batch_size": 24}
    facts = run("ste", tiny_llama, tmp_path, conversations, params=params)
    model, tokenizer = load_dense(tmp_path, "float32")
    with torch.no_grad():
        total, count = token_losses(model, collate(encode_all(tokenizer, conversations), pad=0))
    assert facts["final_loss"] == pytest.approx(total.item() / count, rel=1e-4)


def test_qlora_leaves_its_base_as_nf4_made_it(made):
    base, plain = read_tensors(made[0] / "qlora"), read_tensors(made[0] / "nf4")
    assert base.keys() == plain.keys()
    assert all(torch.equal(base[name], plain[name]) for name in base)
    layers = read_layers(made[0] / "qlora").values()
    assert all(layer.adapter is not None and layer.adapter.B.abs().max() > 0 for layer in layers)
    assert {layer.adapter.scaling for layer in layers} == {2.0}
    config = read_json(made[0] / "qlora/adapter/adapter_config.json")
    assert config["base_model_name_or_path"] == ""
    assert config["target_modules"] == sorted(config["target_modules"])


def inputs_of(source, conversations):
    """Inputs [tokens, in] of every decoder layer in full precision."""
    model, tokenizer = load_dense(source, "float32")
    seen = {}

    def keep(name):
        return lambda module, args, output: seen.setdefault(name, []).append(args[0].flatten(0, 1))

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in decoder_linears(source)]
    with torch.no_grad():
        for ids in calibration_batches(encode_all(tokenizer, conversations)):
            model(ids)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def test_gptq_beats_rounding_on_its_own_objective(made, tiny_llama, conversations):
    """‖X(W−Ŵ)ᵀ‖ of the first block's inputs, which no earlier layer's rounding has moved yet."""
    inputs, source = inputs_of(tiny_llama, conversations), read_tensors(tiny_llama)
    gptq, rtn = read_layers(made[0] / "gptq"), read_layers(made[0] / "rtn")
    for name in [f"model.layers.0.self_attn.{part}_proj" for part in "qkv"]:
        weight, x = source[f"{name}.weight"].float(), inputs[name]
        ours, theirs = ((x @ (weight - layers[name].dense()).T).norm() for layers in (gptq, rtn))
        assert ours < 0.8 * theirs


def test_gptq_rounds_on_the_min_max_grid_of_the_source(made, tiny_llama):
    """Its scales and zero-points are those of round-to-nearest; only the codes are chosen otherwise."""
    source, found = read_tensors(tiny_llama), read_layers(made[0] / "gptq")
    for name, layer in found.items():
        grid = affine_grid(source[f"{name}.weight"], 4, 64)
        assert torch.allclose(layer.grid.scale.float(), grid.scale.float(), rtol=1e-3)
        assert (layer.grid.zero_point == grid.zero_point).float().mean() > 0.98  # theirs comes from the unrounded scale


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_llm_compressor_is_left_as_it_was_found(method, tiny_llama, tmp_path, conversations):
    from llmcompressor.core import active_session
    from llmcompressor.pipelines.cache import IntermediatesCache

    pin_memory = IntermediatesCache.pin_memory
    run(method, tiny_llama, tmp_path, conversations)
    assert active_session().state.model is None  # nothing of this model stays for the next one
    assert IntermediatesCache.pin_memory is pin_memory


def test_awq_moves_scales_into_norms_and_keeps_the_function(made, tiny_llama):
    source, found = read_tensors(tiny_llama), read_tensors(made[0] / "awq")
    norms = [name for name in source if "layernorm" in name]
    assert any(not torch.equal(source[name], found[name]) for name in norms)


@pytest.mark.parametrize("method", ["rtn", "gptq", "nf4"])
def test_a_bfloat16_checkpoint(method, tiny_llama, tmp_path, conversations):
    source = shutil.copytree(tiny_llama, tmp_path / "source")
    write_tensors(source, {name: t.to(torch.bfloat16) for name, t in read_tensors(source).items()})
    config = (source / "config.json").read_text().replace('"float16"', '"bfloat16"')
    (source / "config.json").write_text(config)
    run(method, source, tmp_path / "out", conversations, dtype="bfloat16")
    assert storage_dtype(tmp_path / "out") == torch.bfloat16
    proof = prove(tmp_path / "out", source, {"logit_error": 0.7}, conversations, bits=4, dtype="bfloat16")
    assert proof["effective_bits"] < 4.7


def test_gptq_in_bfloat16_recovers_its_codes_at_8_bits(tiny_llama, tmp_path, conversations):
    """llm-compressor hands back weights, not codes: at 8 bits in bfloat16 they are just close enough."""
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    from bitsafe.artefacts.formats.compressed import weight_args

    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    grid = affine_grid(weight, 8, 64, dtype=torch.bfloat16)
    codes = grid.nearest(weight)
    signed = [(part.to(torch.int16) - 128).to(torch.int8) for part in (codes, grid.zero_point)]
    theirs = dequantize(signed[0], grid.scale, signed[1], weight_args(8, 64, False))
    assert theirs.dtype == torch.bfloat16
    assert torch.equal(grid.nearest(theirs), codes)


# --- refusals, before any work ---


@pytest.mark.parametrize("method", CASES)
def test_unsupported_bits(method, tiny_llama, tmp_path, conversations):
    with pytest.raises(UserError, match=r"bits: 5 is not supported here, only"):
        run(method, tiny_llama, tmp_path, conversations, bits=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", CASES)
def test_an_unknown_parameter(method, tiny_llama, tmp_path, conversations):
    with pytest.raises(UserError, match=r"params\.group_sise: unknown"):
        run(method, tiny_llama, tmp_path, conversations, params=CASES[method][1] | {"group_sise": 32})


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq", "ste"])
def test_a_group_size_that_does_not_fit(method, tiny_llama, tmp_path, conversations):
    params = CASES[method][1] | {"group_size": 160}
    with pytest.raises(UserError, match=r"group_size: 160 does not divide the \d+ inputs of .*; these do: 128, 64"):
        run(method, tiny_llama, tmp_path, conversations, params=params)


@pytest.mark.parametrize("method", NEED_DATA)
def test_no_conversations(method, tiny_llama, tmp_path):
    with pytest.raises(UserError, match="needs a risk set"):
        run(method, tiny_llama, tmp_path, [])


@pytest.mark.parametrize("method", NEED_DATA)
def test_an_empty_conversation(method, tiny_llama, tmp_path, conversations):
    empty = {"id": "e1", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]}
    with pytest.raises(UserError, match="row e1: no assistant answer"):
        run(method, tiny_llama, tmp_path, [*conversations, empty])


@pytest.mark.parametrize("method", CASES)
def test_weights_that_are_not_finite(method, tiny_llama, tmp_path, conversations):
    source = shutil.copytree(tiny_llama, tmp_path / "source")
    tensors = read_tensors(source)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    write_tensors(source, tensors)
    with pytest.raises(UserError, match=r"up_proj\.weight holds NaN"):
        run(method, source, tmp_path / "out", conversations)


def test_a_diverging_rate_stops_the_cell(tiny_llama, tmp_path, conversations):
    with pytest.raises(CellError, match=r"at step \d+ of 40, lr 1e\+30"):
        run("ste", tiny_llama, tmp_path, conversations, params=TRAINING | {"lr": 1e30, "steps": 40})


def test_too_few_calibration_tokens_are_told():
    batches = [torch.zeros(2, 50), torch.zeros(1, 60)]
    with pytest.warns(UserWarning, match="160 calibration tokens for 256 input features: .* rank is at most 160"):
        facts = calibration_facts(batches, width=256)
    assert (facts["calibration_rows"], facts["calibration_tokens"], facts["hessian_rank_bound"]) == (3, 160, 160)
    assert "warning" not in calibration_facts(batches, width=160)


def test_the_seed_draws_the_calibration_rows(tiny_llama, tmp_path, conversations):
    jobs = [QuantizeJob(tiny_llama, tmp_path, 4, {"samples": 5}, conversations, seed) for seed in (0, 0, 1)]
    first, again, other = ([row["id"] for row in draw(job)] for job in jobs)
    assert first == again != other
    assert len(set(first)) == 5
    assert draw(QuantizeJob(tiny_llama, tmp_path, 4, {}, conversations)) == conversations


def test_calibration_batches_need_no_padding_and_cut_little():
    examples = [Example([i] * length, []) for i, length in enumerate([23, 10, 20, 11, 22, 12])]
    batches = calibration_batches(examples)
    assert [batch.tolist() for batch in batches] == [
        [[1] * 10, [3] * 10],  # 12 is more than a tenth longer than 10
        [[5] * 12],
        [[2] * 20, [4] * 20],
        [[0] * 23],
    ]
    assert [len(batch) for batch in calibration_batches([Example([0] * 9, [])] * 70)] == [32, 32, 6]


def test_a_method_that_needs_only_torch_imports_no_quantization_library():
    light = "aqlm, full, llm_qat, quik, quip_sharp, rtn, ste"
    code = f"import sys; from bitsafe.quantizers import {light}; print([m for m in %r if m in sys.modules])"
    heavy = ["llmcompressor", "bitsandbytes", "peft", "datasets"]
    found = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_loading_keeps_tied_weights_tied(made):
    model = load_model(made[0] / "full", "float32")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_model_too_large_for_the_memory_is_refused_before_work_starts(tiny_llama, tmp_path, monkeypatch):
    memory = type("Memory", (), {"available": 1000})
    monkeypatch.setattr("bitsafe.quantizers.base.psutil.virtual_memory", lambda: memory)
    with pytest.raises(UserError, match="GB of memory are free"):
        require_memory(QuantizeJob(tiny_llama, tmp_path, 4))


def test_gptq_that_fell_back_to_plain_rounding_is_an_error():
    """llm-compressor only logs it; the name it keeps them under is private, so that it is still there is tested too."""
    from llmcompressor.modifiers.gptq import GPTQModifier

    modifier = GPTQModifier(targets=["Linear"], scheme="W4A16")
    require_second_order([modifier])
    modifier._rtn_fallback_module_names.append("model.layers.0.mlp.up_proj")
    with pytest.raises(CellError, match=r"1 layers \(first: model.layers.0.mlp.up_proj\).*params.dampening"):
        require_second_order([modifier])


@pytest.mark.parametrize("method", ["full", "ste", "quik"])
def test_a_tied_head_that_is_stored_too_is_written(method, tiny_llama, tmp_path, conversations):
    source = shutil.copytree(tiny_llama, tmp_path / "source")
    tensors = {name: tensor.float() for name, tensor in read_tensors(source).items()}
    write_tensors(source, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    write_config(source, source, dtype="float32")
    params = TRAINING if method in ("full", "ste") else {}
    run(method, source, tmp_path / "made", conversations, bits=16 if method == "full" else 4, params=params)
    assert torch.equal(read_tensors(tmp_path / "made")["lm_head.weight"], tensors["model.embed_tokens.weight"])
