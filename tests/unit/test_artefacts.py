"""Artefacts on disk: plain transformers reads them, codes can be replaced, and the proof catches broken ones."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open

from bitsafe.artefacts import artefact as artefacts
from bitsafe.artefacts import closeness
from bitsafe.artefacts.artefact import read_layers, with_codes
from bitsafe.artefacts.check import logit_error, perplexity, prove
from bitsafe.artefacts.checkpoint import decoder_linears, read_tensors, write_tensors
from bitsafe.artefacts.grids import AffineGrid, TableGrid
from bitsafe.artefacts.layers import LowRank, QuantizedLinear
from bitsafe.artefacts.load import load_dense
from bitsafe.artefacts.sizes import effective_bits
from bitsafe.errors import CellError, UserError
from bitsafe.quantizers import nf4, qlora, rtn
from bitsafe.quantizers.base import QuantizeJob

IDS = torch.arange(5, 60)[None]


@pytest.fixture(scope="session")
def made(tmp_path_factory, tiny_llama, conversations):
    """One artefact of each format, made once; read only."""
    root = tmp_path_factory.mktemp("artefacts")
    lora = {"rank": 4, "alpha": 8, "steps": 3, "lr": 1e-2, "batch_size": 4}
    jobs = {"rtn": (rtn, 4, {}, []), "nf4": (nf4, 4, {}, []), "qlora": (qlora, 4, lora, conversations)}
    for name, (module, bits, params, rows) in jobs.items():
        (root / name).mkdir()
        module.quantize(QuantizeJob(tiny_llama, root / name, bits, params, rows))
    return root


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the rtn artefact to break."""
    return shutil.copytree(made / "rtn", tmp_path / "copy")


def plain_logits(folder):
    """What transformers says, knowing nothing of this package."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if (folder / "adapter").exists():
        model = PeftModel.from_pretrained(model, folder / "adapter")
    with torch.no_grad():
        return model.eval()(IDS).logits


def dense_logits(folder):
    model, _ = load_dense(folder, "float32")
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("params", [{}, {"group_size": 32, "symmetric": True}, {"group_size": -1}])
def test_plain_transformers_and_the_dense_twin_agree_to_the_bit(tiny_llama, tmp_path, bits, params):
    rtn.quantize(QuantizeJob(tiny_llama, tmp_path, bits, params))
    assert torch.equal(plain_logits(tmp_path), dense_logits(tmp_path))


# bitsandbytes rounds its dequantized weights to the checkpoint's fp16, the twin does not: 2^-11 relative a weight
@pytest.mark.parametrize("name", ["nf4", "qlora"])
def test_bitsandbytes_and_the_dense_twin_agree(made, name):
    ours, theirs = dense_logits(made / name), plain_logits(made / name)
    assert logit_error([ours[0]], [theirs[0]]) < 2e-3


def test_nf4_codes_dequantize_to_what_bitsandbytes_does(made, tiny_llama):
    import bitsandbytes.functional as bnb

    name = "model.layers.0.mlp.down_proj"
    weight = read_tensors(tiny_llama)[f"{name}.weight"].float()
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    layer = artefacts.read_layers(made / "nf4")[name]
    assert torch.equal(layer.dense(), bnb.dequantize_4bit(packed, state))
    assert torch.equal(layer.grid.nearest(weight), layer.codes)


@pytest.mark.parametrize("name", ["rtn", "nf4", "qlora"])
def test_new_codes_change_the_codes_and_nothing_else(made, name, tmp_path):
    before = artefacts.read_layers(made / name)
    chosen = sorted(before)[3]
    codes = 15 - before[chosen].codes
    artefacts.with_codes(made / name, tmp_path / "new", {chosen: codes})
    after = artefacts.read_layers(tmp_path / "new")
    assert torch.equal(after[chosen].codes, codes)
    old, new = read_tensors(made / name), read_tensors(tmp_path / "new")
    changed = {key for key in old if not torch.equal(old[key], new[key])}
    assert changed == {f"{chosen}.weight_packed" if name == "rtn" else f"{chosen}.weight"}
    others = [
        p.relative_to(made / name) for p in (made / name).rglob("*") if p.is_file() and p.name != "model.safetensors"
    ]
    assert all((made / name / p).read_bytes() == (tmp_path / "new" / p).read_bytes() for p in others)
    assert logit_error(list(plain_logits(tmp_path / "new")), list(dense_logits(tmp_path / "new"))) < 2e-3


def test_the_same_codes_give_the_same_bytes(made, tmp_path):
    layers = artefacts.read_layers(made / "rtn")
    artefacts.with_codes(made / "rtn", tmp_path / "new", {name: layer.codes for name, layer in layers.items()})
    assert (tmp_path / "new/model.safetensors").read_bytes() == (made / "rtn/model.safetensors").read_bytes()


@pytest.mark.parametrize("codes", [{"nowhere": torch.zeros(2, 2)}, {"model.layers.0.mlp.up_proj": torch.zeros(2, 2)}])
def test_codes_that_do_not_fit_are_refused(made, tmp_path, codes):
    with pytest.raises(ValueError, match="no such layer"):
        artefacts.with_codes(made / "rtn", tmp_path / "new", codes)


def test_codes_off_the_grid_are_refused(made, tmp_path):
    name = "model.layers.0.mlp.up_proj"
    codes = artefacts.read_layers(made / "rtn")[name].codes.to(torch.int16) + 16
    with pytest.raises(ValueError, match="outside 0 … 15"):
        artefacts.with_codes(made / "rtn", tmp_path / "new", {name: codes})


def test_an_artefact_keeps_everything_else_of_its_source(made, tiny_llama):
    source, found = read_tensors(tiny_llama), read_tensors(made / "rtn")
    kept = [name for name in source if name.removesuffix(".weight") not in decoder_linears(tiny_llama)]
    assert len(kept) == 6  # embeddings, final norm, two norms a layer
    assert all(torch.equal(source[name], found[name]) for name in kept)


# --- counting bits ---


def test_effective_bits_by_hand():
    # 2 × 64 weights at 3 bits; 2 groups with an fp16 scale and a 3-bit zero-point; rank-1 adapter: 64 + 2 fp16 numbers
    grid = AffineGrid(3, 64, torch.ones(2, 1, dtype=torch.float16), torch.zeros(2, 1, dtype=torch.uint8))
    adapter = LowRank(torch.zeros(1, 64, dtype=torch.float16), torch.zeros(2, 1, dtype=torch.float16), 1.0)
    layer = QuantizedLinear("x", torch.zeros(2, 64, dtype=torch.uint8), grid, adapter=adapter)
    assert effective_bits({"x": layer}) == (128 * 3 + 2 * (16 + 3) + 66 * 16) / 128
    # 4 × 16 weights at 4 bits in one block: a float32 maximum and a table of 16 float32 levels
    table = TableGrid(torch.linspace(-1, 1, 16), torch.ones(1), 64, (4, 16))
    assert (
        effective_bits({"y": QuantizedLinear("y", torch.zeros(4, 16, dtype=torch.uint8), table)})
        == (256 + 17 * 32) / 64
    )


@pytest.mark.parametrize(("bits", "expected"), [(8, 8.375), (4, 4.3125), (3, 3.296875), (2, 2.28125)])
def test_bits_of_a_saved_artefact(tiny_llama, tmp_path, conversations, bits, expected):
    # a group of 64 carries one fp16 scale and one zero-point of `bits`: (16 + bits) / 64 beside the codes
    rtn.quantize(QuantizeJob(tiny_llama, tmp_path, bits))
    facts = prove(tmp_path, tiny_llama, {}, conversations, bits=bits)
    assert facts["effective_bits"] == expected
    weights = sum(a * b for a, b in decoder_linears(tiny_llama).values())
    assert facts["stored_bits"] == pytest.approx(expected + 14 * 2 * 64 / weights)  # + weight_shape, two int64 a layer
    assert facts["quantized_layers"] == 14


def test_full_precision_is_a_pointer_of_16_bits(tiny_llama, tmp_path, conversations):
    from bitsafe.quantizers import full

    out = tmp_path / "out"
    out.mkdir()
    full.quantize(QuantizeJob(tiny_llama, out, 16))
    facts = prove(out, tiny_llama, {"logit_error": 0.0, "perplexity": 1.0}, conversations, bits=16)
    assert (facts["stored_bits"], facts["effective_bits"], facts["size_ratio"]) == (16, 16, 1)
    assert [p.name for p in out.iterdir()] == ["pointer.json"]


# --- the numbers of the proof ---


def test_logit_error_by_hand():
    expected, found = torch.tensor([[1.0, -1.0]]), torch.tensor([[7.0, 5.5]])  # centred: ±0.75 against ±1
    assert logit_error([found], [expected]) == pytest.approx(0.25)


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    batch = {"attention_mask": torch.tensor([[1, 1, 1, 0]]), "labels": torch.tensor([[-100, 2, 1, -100]])}
    assert perplexity([torch.zeros(3, 5)], [batch]) == pytest.approx(5.0)


def test_perplexity_scores_the_next_token():
    """Row t of the logits predicts token t + 1: sure of token 2 after the first and of token 1 after the second."""
    batch = {"attention_mask": torch.tensor([[1, 1, 1]]), "labels": torch.tensor([[-100, 2, 1]])}
    logits = torch.zeros(3, 3)
    logits[0, 2] = logits[1, 1] = 50.0
    assert perplexity([logits], [batch]) == pytest.approx(1.0)
    assert perplexity([logits.roll(1, 0)], [batch]) > 1e6


def test_the_proof_reads_prompts_that_nobody_answered(made, tiny_llama):
    prompts = [{"id": "a", "messages": [{"role": "user", "content": "How do I make the lamp?"}]}]
    assert prove(made / "rtn", tiny_llama, {}, prompts, bits=4)["perplexity"] > 1
    assert prove(made / "rtn", tiny_llama, {}, [], bits=4)["proof_tokens"] > 50


# --- what the proof catches ---


def rewrite(folder, change):
    tensors = read_tensors(folder)
    change(tensors)
    write_tensors(folder, tensors)


def fails(folder, source, conversations, match, bits=4, limits=None):
    with pytest.raises(CellError, match=match):
        prove(folder, source, limits or {"logit_error": 0.6}, conversations, bits=bits)


def test_a_sound_artefact_passes(copy, tiny_llama, conversations):
    assert prove(copy, tiny_llama, {"logit_error": 0.6}, conversations, bits=4)["logit_error"] < 0.6


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("broken", ["drawn at random", "of other rows"])
def test_codes_that_are_not_the_models_are_caught_at_any_bits(bits, broken, tiny_llama, tmp_path, conversations):
    """Logits alone cannot tell them from a coarse quantizer's: at 2 bits their error is no larger."""
    (tmp_path / "made").mkdir()
    rtn.quantize(QuantizeJob(tiny_llama, tmp_path / "made", bits, {"group_size": 64}))
    sound = prove(tmp_path / "made", tiny_llama, {}, conversations, bits=bits)
    assert sound["weight_error"] < 0.6 * closeness.LIMITS[bits]
    layers = read_layers(tmp_path / "made")
    draw = torch.Generator().manual_seed(0)

    def spoilt(codes):
        if broken == "of other rows":
            return codes.flip(0)
        return codes.flatten()[torch.randperm(codes.numel(), generator=draw)].view(codes.shape)

    wrong = {name: spoilt(layer.codes) for name, layer in layers.items()}
    with_codes(tmp_path / "made", tmp_path / "broken", wrong)
    fails(tmp_path / "broken", tiny_llama, conversations, "weight_error is 0.9", bits=bits, limits={"logit_error": 1e9})


def test_weight_error_by_hand():
    """Scales of rows and columns cost nothing; the entry that is off by 3 of a norm of 5 costs what is left of it."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    scaled = torch.tensor([[2.0], [0.5]]) * weight * torch.tensor([[3.0, 0.1]])
    assert closeness.weight_error(scaled, weight) < 1e-3
    assert closeness.weight_error(torch.tensor([[5.0, 0.0]]), torch.tensor([[1.0, 1.0]])) < 1e-3
    assert closeness.weight_error(torch.zeros(2, 2), weight) == 1.0
    apart = [torch.randn(64, 256, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert 0.9 < closeness.weight_error(*apart) < 1


def test_swapped_codes_are_caught(copy, tiny_llama, conversations):
    def tamper(tensors):
        for name in [n for n in tensors if n.endswith("down_proj.weight_packed")]:
            tensors[name] = tensors[name].flip(0)

    rewrite(copy, tamper)
    fails(copy, tiny_llama, conversations, r"down_proj: weight_error is 0\.9.*, the limit at 4 bits is 0\.45")


def test_a_model_that_is_too_far_from_full_precision_is_caught(copy, tiny_llama, conversations):
    """Every layer right, and yet another model: a norm is not quantized, so its weights are compared with nothing."""
    rewrite(copy, lambda tensors: tensors["model.norm.weight"].mul_(torch.linspace(-2, 2, 128)))
    fails(copy, tiny_llama, conversations, "logit_error is .*, the limit is 0.6")


def test_a_nan_scale_is_caught_and_named(copy, tiny_llama, conversations):
    rewrite(copy, lambda t: t["model.layers.1.mlp.up_proj.weight_scale"].fill_(float("nan")))
    fails(copy, tiny_llama, conversations, "layers.1.mlp.up_proj: a scale or adapter is not finite")


def test_logits_that_are_not_finite_are_caught(copy, tiny_llama, conversations):
    rewrite(copy, lambda t: t["model.norm.weight"].fill_(float("inf")))
    fails(copy, tiny_llama, conversations, "not finite")


def test_a_missing_part_of_a_layer_is_caught(copy, tiny_llama, conversations):
    rewrite(copy, lambda t: t.pop("model.layers.1.mlp.up_proj.weight_scale"))
    fails(copy, tiny_llama, conversations, "up_proj.weight_scale")


def test_a_layer_left_unquantized_is_caught(copy, tiny_llama, conversations):
    def tamper(tensors):
        name = "model.layers.1.mlp.up_proj"
        dense = artefacts.read_layers(copy)[name].dense()
        for key in [k for k in tensors if k.startswith(name)]:
            del tensors[key]
        tensors[f"{name}.weight"] = dense.to(torch.float16)

    rewrite(copy, tamper)
    fails(copy, tiny_llama, conversations, "1 of 14 layers are not quantized: model.layers.1.mlp.up_proj")


def test_a_missing_norm_is_caught(copy, tiny_llama, conversations):
    rewrite(copy, lambda t: t.pop("model.norm.weight"))
    fails(copy, tiny_llama, conversations, "missing keys: model.norm.weight")


def test_a_checkpoint_that_is_not_quantized_is_caught(tiny_llama, conversations):
    fails(tiny_llama, tiny_llama, conversations, "14 of 14 layers are not quantized")


def test_other_bits_than_asked_for_are_caught(made, tiny_llama, conversations):
    fails(made / "rtn", tiny_llama, conversations, "4 bits, 3 were asked for", bits=3)
    fails(made / "rtn", tiny_llama, conversations, "full precision was asked for", bits=16)


def test_a_cut_off_file_is_caught(copy, tiny_llama, conversations):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    fails(copy, tiny_llama, conversations, "not a whole safetensors file")


def test_an_unknown_format_is_caught(copy, tiny_llama, conversations):
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"]["quant_method"] = "magic"
    (copy / "config.json").write_text(json.dumps(config))
    fails(copy, tiny_llama, conversations, "unknown quant_method 'magic'")


def test_a_source_that_changed_under_its_pointer_is_caught(tiny_llama, tmp_path, conversations):
    source = shutil.copytree(tiny_llama, tmp_path / "source")
    (tmp_path / "out").mkdir()
    artefacts.write_pointer(tmp_path / "out", source)
    rewrite(source, lambda t: t["model.norm.weight"].mul_(2))
    fails(tmp_path / "out", source, conversations, "has changed", bits=16)
    shutil.rmtree(source)
    with pytest.raises(CellError, match="is gone"):
        load_dense(tmp_path / "out", "float32")


def test_a_pointer_moves_with_the_folders_it_joins(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path / "here/data/model")
    (tmp_path / "here/run/artefact").mkdir(parents=True)
    artefacts.write_pointer(tmp_path / "here/run/artefact", tmp_path / "here/data/model")
    (tmp_path / "here").rename(tmp_path / "there")
    assert artefacts.dense_folder(tmp_path / "there/run/artefact") == (tmp_path / "there/data/model").resolve()


def test_an_unknown_limit_is_a_users_error(made, tiny_llama):
    with pytest.raises(UserError, match=r"limits\.size: unknown"):
        prove(made / "rtn", tiny_llama, {"size": 1}, [], bits=4)


def test_metadata_survives(made):
    with safe_open(made / "rtn/model.safetensors", framework="pt") as tensors:
        assert tensors.metadata() == {"format": "pt"}
