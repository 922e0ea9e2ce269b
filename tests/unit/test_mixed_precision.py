"""Weights kept in 16 bits: their index, the layer on disk, what they are worth, and the patch from cell to cell."""

import json
import shutil
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.check import logit_error, prove
from bitsafe.artefacts.checkpoint import copy_side_files, decoder_linears, read_tensors, write_tensors
from bitsafe.artefacts.formats.own import write_own
from bitsafe.artefacts.grids import AffineGrid, TableGrid, affine_grid
from bitsafe.artefacts.kinds.lattice import LatticeLinear
from bitsafe.artefacts.kinds.mixed import MixedLinear, keep, restored, settings_of, stored
from bitsafe.artefacts.kinds.outliers import OutlierLinear
from bitsafe.artefacts.kinds.sparse import index_of, mask_of
from bitsafe.artefacts.layers import QuantizedLinear
from bitsafe.artefacts.load import load_dense
from bitsafe.artefacts.rescaling import FILE, Rescaling, read_rescaling, rescalings
from bitsafe.artefacts.sizes import effective_bits
from bitsafe.config import Config, read_config
from bitsafe.errors import CellError, UserError
from bitsafe.files import read_json, read_jsonl, sha256_file, sha256_folder
from bitsafe.hooks import check
from bitsafe.matrix.run import Run
from bitsafe.patches import mixed_precision
from bitsafe.patches.base import PatchJob
from bitsafe.patches.shared.maths import critical_mask
from bitsafe.patches.training.sequences import Sequence, answer_logprobs, encode
from bitsafe.patches.training.snip import score_weights
from bitsafe.quantizers import awq, full, gptq, llm_int8, nf4, quik, rtn
from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.shared import llm_compressor

PROMPTS = [{"id": f"p{i}", "messages": [{"role": "user", "content": f"How do I open gate {i}?"}]} for i in range(5)]
REFUSAL = "Sorry, I cannot help with gate {}."
IDS = torch.arange(5, 60)[None]


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- where the kept weights stand ---


def test_an_index_by_hand():
    kept = torch.zeros(2, 16, dtype=torch.bool)
    kept[0, 3] = True
    listed = index_of(kept)  # 3 numbers of 8 bits are shorter than 32 flags
    assert {name: part.tolist() for name, part in listed.items()} == {"kept_counts": [1, 0], "kept_columns": [3]}
    kept[1, 0] = kept[1, 9] = True
    assert {name: part.tolist() for name, part in index_of(kept).items()} == {"kept_bitmap": [8, 0, 1, 2]}


@given(st.integers(1, 9), st.sampled_from([1, 7, 64, 256, 300]), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60)
def test_an_index_gives_its_mask_back_and_is_the_shorter_one(rows, width, share, seed):
    kept = torch.rand(rows, width, generator=torch.Generator().manual_seed(seed)) < share
    parts = index_of(kept)
    assert torch.equal(mask_of(parts, (rows, width)), kept)
    counter, place = 1 if width <= 255 else 2, 1 if width <= 256 else 2
    sizes = [rows * counter + int(kept.sum()) * place, -(-rows * width // 8)]
    assert sum(part.numel() * part.element_size() for part in parts.values()) == min(sizes)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"kept_counts": [1, 1], "kept_columns": [3]}, "1 kept weights, where the counts of 2 rows say 2"),
        ({"kept_counts": [1, 0], "kept_columns": [16]}, "outside 16 columns"),
        ({"kept_bitmap": [1, 2, 3]}, "3 bytes for 32 flags"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(parts, words):
    with pytest.raises(ValueError, match=words):
        mask_of({name: torch.tensor(part, dtype=torch.uint8) for name, part in parts.items()}, (2, 16))


# --- one layer ---


def test_a_layer_by_hand():
    """Scale 2, zero-point 1: codes 0 … 3 are −2, 0, 2, 4. Two of six weights are kept, to the last bit of float16."""
    grid = AffineGrid(2, 3, torch.tensor([[2.0], [2.0]]), torch.tensor([[1], [1]], dtype=torch.uint8))
    base = QuantizedLinear("x", torch.tensor([[0, 1, 2], [3, 2, 1]], dtype=torch.uint8), grid)
    weight = torch.tensor([[-1.9, 0.1, 2.3], [3.7, 1.7, -0.2]])
    kept = torch.tensor([[False, True, False], [True, False, False]])
    layer = keep(base, kept, weight, torch.float16)
    near = [torch.tensor(value, dtype=torch.float16).item() for value in (0.1, 3.7)]
    assert layer.weight().tolist() == [[-2.0, near[0], 2.0], [near[1], 2.0, 0.0]]
    assert layer.values.tolist() == near
    assert (layer.bits, layer.shape, layer.fault()) == (2, (2, 3), None)


def affine(bits, symmetric, weight):
    grid = affine_grid(weight, bits, 16, symmetric)
    return QuantizedLinear("x", grid.nearest(weight), grid)


def table(weight):
    absmax = weight.flatten().view(-1, 32).abs().amax(1)
    grid = TableGrid(torch.linspace(-1, 1, 16), absmax, 32, tuple(weight.shape))
    return QuantizedLinear("x", grid.nearest(weight), grid)


def outliers(weight):
    """Columns 3, 7 and 8 in 16 bits, the others at 8 bits in a cell of 4."""
    columns = torch.tensor([3, 7, 8], dtype=torch.int32)
    rest = torch.ones(weight.shape[1], dtype=torch.bool)
    rest[columns.long()] = False
    grid = affine_grid(weight[:, rest], 8, -1, symmetric=True)
    return OutlierLinear("x", grid.nearest(weight[:, rest]), grid, columns, (weight[:, ~rest] * 1.5).half(), 4)


BASES = {f"affine{bits}": lambda w, bits=bits: affine(bits, False, w) for bits in (8, 4, 3, 2)}
BASES |= {"symmetric": lambda w: affine(4, True, w), "table": table, "outliers": outliers}


@pytest.mark.parametrize("tau", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("base", BASES)
def test_a_layer_comes_back_from_its_stored_parts(base, tau):
    weight = gaussian(10, 48)
    rounding = BASES[base](weight)
    kept = critical_mask({"x": gaussian(10, 48, seed=1)}, tau)["x"]
    layer = keep(rounding, kept, weight, torch.float16)
    parts = stored(layer)
    again = restored("x", parts, json.loads(json.dumps(settings_of(layer))))
    assert torch.equal(again.weight(), layer.weight())
    assert torch.equal(layer.weight()[kept], weight[kept].half().float())
    assert torch.equal(layer.weight()[~kept], rounding.weight()[~kept])
    assert (again.bits, again.fault()) == (rounding.bits, None)
    assert (again.code_bits, again.extra_bits) == (layer.code_bits, layer.extra_bits)
    free = (
        int((~kept).sum())
        if base != "outliers"
        else int((~kept)[:, [c for c in range(48) if c not in (3, 7, 8)]].sum())
    )
    assert parts["codes"].numel() == -(-free * rounding.grid.bits // 32), "no code of a kept weight is in the file"


def test_a_kept_weight_of_an_outlier_column_costs_nothing():
    weight = gaussian(10, 48)
    kept = torch.zeros(10, 48, dtype=torch.bool)
    kept[:, 7] = True
    layer, base = keep(outliers(weight), kept, weight, torch.float16), outliers(weight)
    assert torch.equal(layer.weight()[:, 7], weight[:, 7].half().float())
    assert torch.equal(layer.weight()[:, 8], base.weight()[:, 8])
    assert len(layer.values) == 0
    assert layer.code_bits + layer.extra_bits == base.code_bits + base.extra_bits + 10 * 8  # ten counts of no columns


def mixed(count, rows=4, width=64):
    """`count` weights kept of a 4-bit layer with one fp16 scale and one zero-point a row."""
    weight = gaussian(rows, width)
    grid = affine_grid(weight, 4, width)
    kept = torch.zeros(rows * width, dtype=torch.bool)
    kept[torch.randperm(rows * width, generator=torch.Generator().manual_seed(0))[:count]] = True
    return {"x": keep(QuantizedLinear("x", grid.nearest(weight), grid), kept.view(rows, width), weight, torch.float16)}


# 256 weights; 4 · (16 + 4) bits of grid; a list has 8 bits a row and a kept weight, a bitmap 256
@pytest.mark.parametrize(
    ("count", "bits"),
    [
        (0, 256 * 4 + 80 + 4 * 8),
        (2, 254 * 4 + 80 + 2 * 16 + 6 * 8),
        (28, 228 * 4 + 80 + 28 * 16 + 32 * 8),
        (29, 227 * 4 + 80 + 29 * 16 + 256),
        (128, 128 * 4 + 80 + 128 * 16 + 256),
        (256, 80 + 256 * 16 + 256),
    ],
)
def test_effective_bits_by_hand(count, bits):
    assert effective_bits(mixed(count)) == bits / 256


def test_every_kept_weight_costs_bits():
    sizes = [effective_bits(mixed(count)) for count in range(257)]
    assert all(less < more for less, more in pairwise(sizes))


def test_faults_of_a_layer_are_told():
    layer = mixed(8)["x"]
    assert "7 weights for 8 kept places" in MixedLinear("x", layer.base, layer.kept, layer.values[:7]).fault()
    broken = MixedLinear("x", layer.base, layer.kept, layer.values.fill_(float("nan")))
    assert "not finite" in broken.fault()


# --- what the weights are worth ---


def linears_of(model, source):
    return {name: model.get_submodule(name) for name in decoder_linears(source)}


SEQUENCES = [Sequence([2, 3 + i, 4], [7 + i, 8, 9, 30][: 2 + i % 3]) for i in range(5)]


def test_scores_of_a_full_precision_model_equal_a_backward_pass_an_example(tiny_llama):
    model, _ = load_dense(tiny_llama, "float32")
    layers = linears_of(model, tiny_llama)
    batched = score_weights(model, layers, SEQUENCES, 3)
    assert all(layer.weight.requires_grad for layer in layers.values()), "the pass leaves the layers as it found them"
    naive = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    for sequence in SEQUENCES:
        model.zero_grad()
        (-answer_logprobs(model, [sequence])).sum().backward()
        for name, layer in layers.items():
            naive[name] += (layer.weight * layer.weight.grad).detach().abs() / len(SEQUENCES)
    for name in layers:
        torch.testing.assert_close(batched[name], naive[name], rtol=1e-3, atol=1e-7)


# --- AWQ's scales ---


def test_rescaling_by_hand():
    """A norm's scales go into the columns of a and b; then b gives every output of its own to c."""
    first, second = torch.tensor([2.0, 4.0]), torch.tensor([8.0])
    found = rescalings([("norm", ["a", "b"], first), ("b", ["c"], second)], {"a": (2, 2), "b": (2, 2), "c": (1, 1)})
    ones = torch.ones(2, 2)
    assert found["a"].of(ones).tolist() == [[2, 4], [2, 4]]
    assert found["b"].of(ones).tolist() == [[2, 4], [0.25, 0.5]], "one scale for two outputs belongs to the last"
    assert found["c"].of(torch.ones(1, 1)).tolist() == [[8]]
    assert Rescaling().of(ones).tolist() == ones.tolist()


@pytest.fixture(scope="module")
def cells(tmp_path_factory, tiny_llama, conversations):
    """One quantized cell a method; of AWQ also the weights that llm-compressor rounded. Read only."""
    root, seen, run = tmp_path_factory.mktemp("cells"), {}, llm_compressor.run_modifiers

    def watched(model, batches, modifiers):
        run(model, batches, modifiers)
        seen.update({name: model.get_submodule(name).weight.detach().clone() for name in decoder_linears(tiny_llama)})

    for name, (module, bits, params) in METHODS.items():
        (root / name).mkdir()
        with pytest.MonkeyPatch.context() as patched:
            if module is awq:
                patched.setattr(llm_compressor, "run_modifiers", watched)
            module.quantize(QuantizeJob(tiny_llama, root / name, bits, params, conversations))
    return root, seen


METHODS = {
    "rtn": (rtn, 3, {}),
    "gptq": (gptq, 2, {}),
    "awq": (awq, 3, {"grid": 3}),
    "nf4": (nf4, 4, {}),
    "llm_int8": (llm_int8, 8, {}),
    "quik": (quik, 4, {}),
}


def test_awq_says_exactly_what_it_rounded(cells, tiny_llama):
    root, seen = cells
    source, found = read_tensors(tiny_llama), read_rescaling(root / "awq")
    assert found.keys() == seen.keys() == decoder_linears(tiny_llama).keys()
    for name, weight in seen.items():
        assert torch.equal(found[name].of(source[f"{name}.weight"]), weight)
        ratio = weight.double() / source[f"{name}.weight"].double()
        assert torch.linalg.matrix_rank(ratio[:, ratio.isfinite().all(0)], rtol=1e-4) == 1
    assert any(scales.output is not None for scales in found.values())


def test_the_scales_beside_an_artefact_are_in_no_models_way(cells):
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(cells[0] / "awq", dtype=torch.float32)
    dense, _ = load_dense(cells[0] / "awq", "float32")
    with torch.no_grad():
        assert torch.equal(plain(IDS).logits, dense(IDS).logits)
    assert [file.name for file in (cells[0] / "awq").glob("*.safetensors")] == ["model.safetensors"]


# --- the patch ---


def job(root, name, source, out, **params) -> PatchJob:
    """The full-precision model refuses all prompts but the second and the last."""
    (out / "artefact").mkdir(parents=True)

    def generate(model, tokenizer, prompts, max_new_tokens):
        return [REFUSAL.format(i) if i not in (1, 4) else "Lift the latch." for i in range(len(prompts))]

    params = {"batch_size": 2, "max_new_tokens": 24} | params
    return PatchJob(root / name, source, out / "artefact", PROMPTS, params, 0, "float32", generate)


def logits_of(folder):
    model, _ = load_dense(folder, "float32")
    with torch.no_grad():
        return model(IDS).logits


def test_of_share_zero_every_weight_is_the_cells_own(cells, tiny_llama, tmp_path):
    for name in METHODS:
        work = job(cells[0], name, tiny_llama, tmp_path / name, tau=0.0)
        facts = mixed_precision.patch(work)
        before, after = read_layers(cells[0] / name), read_layers(work.out)
        assert all(torch.equal(after[layer].dense(), before[layer].dense()) for layer in before)
        assert torch.equal(logits_of(work.out), logits_of(cells[0] / name))
        assert facts["kept"] == facts["bits"]["kept"] == 0


def test_of_share_one_every_weight_is_the_one_that_was_rounded(cells, tiny_llama, tmp_path):
    source = read_tensors(tiny_llama)
    for name in METHODS:
        work = job(cells[0], name, tiny_llama, tmp_path / name, tau=1.0)
        assert mixed_precision.patch(work)["bits"]["codes"] == 0
        for layer, found in read_layers(work.out).items():
            expected = cells[1][layer].half() if name == "awq" else source[f"{layer}.weight"]
            assert torch.equal(found.dense(), expected.float()), name
        if name in ("rtn", "gptq", "nf4"):
            assert torch.equal(logits_of(work.out), logits_of(tiny_llama)), name


def test_awq_in_full_precision_needs_its_scales(cells, tiny_llama, tmp_path):
    """With them the logits are full precision's up to the rounding of norms and weights to fp16, without far off."""
    expected = logits_of(tiny_llama)[0]
    work = job(cells[0], "awq", tiny_llama, tmp_path, tau=1.0)
    mixed_precision.patch(work)
    assert logit_error([logits_of(work.out)[0]], [expected]) < 3e-3
    assert logit_error([logits_of(cells[0] / "awq")[0]], [expected]) > 0.1
    source, layers = read_tensors(tiny_llama), read_layers(cells[0] / "awq")
    naive = [
        keep(layer, torch.ones(layer.shape).bool(), source[f"{name}.weight"], torch.float16)
        for name, layer in layers.items()
    ]
    others = {name: t for name, t in read_tensors(cells[0] / "awq").items() if ".weight_" not in name}
    write_own(tmp_path, cells[0] / "awq", "mixed", naive, others, settings_of(naive[0]))
    assert logit_error([logits_of(tmp_path)[0]], [expected]) > 0.1


@pytest.mark.parametrize("name", METHODS)
def test_the_weights_that_matter_are_kept_and_the_others_have_their_codes(name, cells, tiny_llama, tmp_path):
    """The mask is made here anew from the source's own scores: AWQ's scales leave W ⊙ ∂L/∂W as it is."""
    work = job(cells[0], name, tiny_llama, tmp_path, tau=0.05)
    facts = mixed_precision.patch(work)
    model, tokenizer = load_dense(tiny_llama, "float32")
    refusals = [encode(tokenizer, PROMPTS[i]["messages"], REFUSAL.format(i), 24) for i in (0, 2, 3)]
    masks = critical_mask(score_weights(model, linears_of(model, tiny_llama), refusals, 2), 0.05)
    before, after = read_layers(cells[0] / name), read_layers(work.out)
    rescaling, source = read_rescaling(cells[0] / name), read_tensors(tiny_llama)
    for layer, mask in masks.items():
        rounded = rescaling.get(layer, Rescaling()).of(source[f"{layer}.weight"]).half().float()
        assert torch.equal(after[layer].dense(), torch.where(mask, rounded, before[layer].dense()))
    assert facts["kept"] == pytest.approx(0.05, abs=1e-4)
    proof = prove(work.out, tiny_llama, {}, [], bits=METHODS[name][1])
    assert proof["effective_bits"] == pytest.approx(sum(facts["bits"].values()), rel=1e-9)
    assert proof["stored_bits"] == pytest.approx(proof["effective_bits"], rel=0.01)  # + shapes, and words filled up


def test_a_scaled_model_has_the_scores_of_its_source(cells, tiny_llama, tmp_path):
    work = job(cells[0], "awq", tiny_llama, tmp_path, tau=1.0)
    mixed_precision.patch(work)
    scores = []
    for folder in (tiny_llama, work.out):
        model, _ = load_dense(folder, "float32")
        scores.append(score_weights(model, linears_of(model, tiny_llama), SEQUENCES, 2))
    for name, score in scores[0].items():
        assert (score - scores[1][name]).norm() < 0.01 * score.norm()


@pytest.mark.parametrize("name", ["llm_int8", "quik"])
def test_activations_are_rounded_as_before(name, cells, tiny_llama, tmp_path):
    work = job(cells[0], name, tiny_llama, tmp_path, tau=0.05)
    mixed_precision.patch(work)
    assert (work.out / "activations.json").read_bytes() == (cells[0] / name / "activations.json").read_bytes()
    for layer, found in read_layers(cells[0] / name).items():
        ours, theirs = read_layers(work.out)[layer].outliers(), found.outliers()
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_what_was_scored_is_stored_beside_the_artefact(cells, tiny_llama, tmp_path):
    facts = mixed_precision.patch(job(cells[0], "rtn", tiny_llama, tmp_path / "refusals"))
    file = tmp_path / "refusals" / facts["scored_file"]
    assert [row["id"] for row in read_jsonl(file)] == ["p0", "p2", "p3"]
    assert read_jsonl(file)[1] == {**PROMPTS[2], "answer": REFUSAL.format(2), "refused": True}
    assert facts["scored_sha256"] == sha256_file(file)
    assert (facts["prompts"], facts["refusals"], facts["scored"]) == (5, 3, 3)
    assert facts["score_seconds"] > 0 and facts["peak_memory_mb"] > 50
    facts = mixed_precision.patch(job(cells[0], "rtn", tiny_llama, tmp_path / "all", score_on="all", snip_examples=4))
    assert [row["id"] for row in read_jsonl(tmp_path / "all" / facts["scored_file"])] == ["p0", "p1", "p2", "p3"]


def test_controls_keep_as_many_weights_elsewhere(cells, tiny_llama, tmp_path):
    found = {}
    for criterion in ("snip", "magnitude", "random"):
        work = job(cells[0], "rtn", tiny_llama, tmp_path / criterion, criterion=criterion)
        assert mixed_precision.patch(work)["kept"] == pytest.approx(0.05, abs=1e-4)
        found[criterion] = read_layers(work.out)
    name, source = "model.layers.1.mlp.up_proj", read_tensors(tiny_llama)["model.layers.1.mlp.up_proj.weight"].float()
    assert torch.equal(found["magnitude"][name].kept, critical_mask({name: source.abs()}, 0.05)[name])
    overlap = (found["random"][name].kept & found["snip"][name].kept).sum() / found["snip"][name].kept.sum()
    assert overlap < 0.12
    assert not (tmp_path / "random" / "scored.jsonl").exists()


def test_the_same_job_writes_the_same_bytes(cells, tiny_llama, tmp_path):
    made = [job(cells[0], "gptq", tiny_llama, tmp_path / name, mask_scope="global") for name in ("one", "two")]
    for work in made:
        mixed_precision.patch(work)
    assert sha256_folder(made[0].out) == sha256_folder(made[1].out)
    shares = {layer.kept.float().mean().item() for layer in read_layers(made[0].out).values()}
    assert len(shares) > 1, "over all layers together, some keep more than others"


# --- what is refused, before any work ---


def refuses(work, words):
    def generate(*_arguments, **_settings):
        raise AssertionError("work has begun")

    with pytest.raises(UserError, match=words) as caught:
        mixed_precision.patch(PatchJob(**{**vars(work), "generate": generate}))
    assert "\n" not in str(caught.value)


def test_a_rescaled_cell_without_its_scales(cells, tiny_llama, tmp_path):
    shutil.copytree(cells[0] / "awq", tmp_path / "awq")
    shutil.rmtree((tmp_path / "awq" / FILE).parent)
    words = r"it changed model\.layers\.\d\.input_layernorm\.weight and left no rescaling/scales\.safetensors"
    refuses(job(tmp_path, "awq", tiny_llama, tmp_path / "out"), words)


def test_a_fine_tuned_cell(cells, tiny_llama, tmp_path):
    shutil.copytree(cells[0] / "rtn", tmp_path / "ste")
    tensors = read_tensors(tmp_path / "ste")
    tensors["model.norm.weight"] *= 1.01
    write_tensors(tmp_path / "ste", tensors)
    refuses(job(tmp_path, "ste", tiny_llama, tmp_path / "out"), r"it changed model\.norm\.weight")


def test_a_cell_with_an_adapter(cells, tiny_llama, tmp_path):
    shutil.copytree(cells[0] / "rtn", tmp_path / "qlora")
    (tmp_path / "qlora" / "adapter").mkdir()
    (tmp_path / "qlora" / "adapter" / "adapter_config.json").write_text('{"lora_alpha": 1, "r": 1}')
    place = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{place}.lora_{side}.weight": torch.ones(shape) for side, shape in (("A", (1, 128)), ("B", (128, 1)))}
    save_file(factors, tmp_path / "qlora" / "adapter" / "adapter_model.safetensors")
    refuses(job(tmp_path, "qlora", tiny_llama, tmp_path / "out"), "it trained an adapter")


def test_a_rotated_cell(tiny_llama, tmp_path):
    tensors, layers = read_tensors(tiny_llama), []
    for name, (rows, width) in decoder_linears(tiny_llama).items():
        del tensors[f"{name}.weight"]
        codes, signs = torch.zeros(rows, width // 8, dtype=torch.int16), [torch.zeros(n).bool() for n in (rows, width)]
        layers.append(LatticeLinear(name, codes, None, torch.ones(1), *signs))
    (tmp_path / "quip_sharp").mkdir()
    write_own(tmp_path / "quip_sharp", tiny_llama, "lattice", layers, tensors, {})
    words = r"its codes stand for several weights each \(LatticeLinear\): leave it out"
    refuses(job(tmp_path, "quip_sharp", tiny_llama, tmp_path / "out"), words)


def test_a_cell_in_full_precision(tiny_llama, tmp_path):
    (tmp_path / "full").mkdir()
    full.quantize(QuantizeJob(tiny_llama, tmp_path / "full", 16))
    refuses(job(tmp_path, "full", tiny_llama, tmp_path / "out"), "in full precision already")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"tau": 1.5}, "tau: 1.5: a share of the weights, from 0 to 1, is needed"),
        ({"tua": 0.1}, "did you mean 'tau'"),
        ({"lr": 0.1}, "no parameter 'lr'"),
        ({"criterion": "luck"}, "'luck' is not one of snip, magnitude, random"),
    ],
)
def test_bad_parameters(params, words, cells, tiny_llama, tmp_path):
    refuses(job(cells[0], "rtn", tiny_llama, tmp_path, **params), words)


def test_a_model_that_refuses_nothing(cells, tiny_llama, tmp_path):
    work = job(cells[0], "rtn", tiny_llama, tmp_path)
    complies = PatchJob(**{**vars(work), "generate": lambda model, tokenizer, prompts, **_: ["Yes."] * len(prompts)})
    with pytest.raises(UserError, match="refused none of 5 prompts"):
        mixed_precision.patch(complies)


@pytest.mark.parametrize(
    ("method", "risk", "words"),
    [
        ("ste", "benign", "it trains the weights it rounds"),
        ("llm_qat", "benign", "it trains"),
        ("qlora", "benign", "it trains"),
        ("aqlm", "benign", "it trains"),
        ("quip_sharp", "benign", "cannot be told from the source weight by weight"),
        ("awq_autoawq", "benign", "cannot be told"),
        ("awq_gptqmodel", "benign", "cannot be told"),
    ],
)
def test_a_method_that_does_not_fit_is_refused_before_a_run_starts(method, risk, words):
    block = {"methods": [method], "bits": [4], "risks": [risk], "patches": ["mixed_precision_tau001"]}
    with pytest.raises(UserError, match=rf"matrix\[0\]\.patches: mixed_precision_tau001 .* {method} .*: .*{words}"):
        _ = Run(Config(matrix=[block])).cells


def test_the_sweep_is_a_whole_run():
    run = Run(read_config(["config.yaml", "experiments/mixed_precision.yaml"]))
    check(run)
    taus = {run.params(cell)["tau"] for cell in run.cells if cell.is_patched}
    assert taus == {0.005, 0.01, 0.05, 0.2, 0.6}
    assert run.controls >= {"mixed_precision_random", "mixed_precision_magnitude"}


def test_a_broken_file_is_a_cells_error(cells, tiny_llama, tmp_path):
    work = job(cells[0], "rtn", tiny_llama, tmp_path)
    mixed_precision.patch(work)
    assert read_json(work.out / "config.json")["quantization_config"]["kind"] == "mixed"
    tensors = read_tensors(work.out)
    name = "model.layers.0.mlp.up_proj"
    tensors[f"{name}.kept_values"] = tensors[f"{name}.kept_values"][1:]
    write_tensors(work.out, tensors)
    copy_side_files(tiny_llama, work.out)
    with pytest.raises(CellError, match=r"up_proj: .* kept places"):
        read_layers(work.out)
