"""AQLM: its maths against naive references, its layouts, its format against the aqlm package, its block training."""

import itertools
import shutil

import pytest
import torch
import torch.nn.functional as F

from bitsafe.artefacts import artefact as artefacts
from bitsafe.artefacts.additive import AdditiveLinear, decode, decode_gradient
from bitsafe.artefacts.check import logit_error, prove
from bitsafe.artefacts.checkpoint import decoder_linears, read_tensors, write_tensors
from bitsafe.artefacts.formats.aqlm import code_dtype, signed, unsigned, write_aqlm
from bitsafe.artefacts.load import load_dense
from bitsafe.artefacts.sizes import effective_bits
from bitsafe.errors import CellError, UserError
from bitsafe.quantizers import aqlm
from bitsafe.quantizers.additive import search
from bitsafe.quantizers.additive.fit import Fit, FitSettings, adam, fit, start
from bitsafe.quantizers.additive.layouts import SIZES, Layout, choose, parse
from bitsafe.quantizers.additive.module import AdditiveModule
from bitsafe.quantizers.additive.search import beam_search, output_errors
from bitsafe.quantizers.additive.start import kmeans, nearest, residual_kmeans
from bitsafe.quantizers.additive.tune import tune_block
from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.shared.blocks import walk
from bitsafe.quantizers.shared.calibration import prepare

QUICK = {"max_rounds": 1, "adam_steps": 10, "kmeans_steps": 3, "beam": 2, "finetune_steps": 8, "steps": 0, "lr": 1e-3}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(high, *shape, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def inputs(tokens, width, seed):
    """Correlated inputs [tokens, width] with features of unlike size; `seed` draws the tokens, not the features."""
    mixing = random(width, width, seed=100) * torch.logspace(-1, 1, width)
    return random(tokens, width, seed=seed) @ mixing


def gram_of(x):
    return x.T @ x / len(x)


# --- decoding ---


def test_decoding_by_hand():
    # two outputs, four inputs in two groups, two codebooks of two codewords
    codebooks = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.5, 0.5], [-1.0, 3.0]]])
    codes = torch.tensor([[[0, 0], [1, 1]], [[1, 0], [0, 1]]])
    expected = torch.tensor([[1.5, 0.5, -1.0, 5.0], [1.0, 5.0, 0.0, 6.0]])
    assert torch.equal(decode(codes, codebooks, torch.tensor([1.0, 2.0])), expected)


def test_the_gradient_of_decoding_is_autograds():
    codes, codebooks, scales = integers(8, 5, 3, 2), random(2, 8, 4).requires_grad_(), random(5).requires_grad_()
    gradient = random(5, 12, seed=1)
    decode(codes, codebooks, scales).backward(gradient)
    ours = decode_gradient(codes, codebooks.detach(), scales.detach(), gradient)
    assert torch.allclose(ours[0], codebooks.grad, atol=1e-5)
    assert torch.allclose(ours[1], scales.grad, atol=1e-5)


def test_the_module_is_a_linear_layer_of_the_decoded_weight():
    codes, codebooks, scales, bias = integers(8, 5, 3, 2), random(2, 8, 4), random(5), random(5, seed=2)
    module = AdditiveModule(Fit(codes, codebooks, scales, []), bias)
    x = random(2, 7, 12, seed=3).requires_grad_()
    parts = [codebooks.clone().requires_grad_(), scales.clone().requires_grad_(), x.detach().clone().requires_grad_()]
    expected = F.linear(parts[2], decode(codes, *parts[:2]), bias)
    out = module(x)
    assert torch.allclose(out, expected, atol=1e-5)
    for result in (out, expected):
        result.square().sum().backward()
    for ours, theirs in zip((module.codebooks, module.scales, x), parts):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-3)


# --- the start ---


def naive_kmeans(points, size, iterations, first):
    centroids = [points[i].clone() for i in first]
    for _ in range(iterations):
        members = [[] for _ in range(size)]
        for point in points:
            distances = [float((point - c).square().sum()) for c in centroids]
            members[distances.index(min(distances))].append(point)
        centroids = [torch.stack(m).mean(0) if m else c for m, c in zip(members, centroids)]
    return torch.stack(centroids)


def test_kmeans_against_a_naive_one():
    points = random(60, 3)
    first = torch.randperm(60, generator=torch.Generator().manual_seed(5))[:7].tolist()
    found = kmeans(points, 7, 6, torch.Generator().manual_seed(5))
    assert torch.allclose(found, naive_kmeans(points, 7, 6, first), atol=1e-5)


def test_kmeans_of_fewer_points_than_centroids_is_exact():
    points = random(5, 2)
    found = kmeans(points, 8, 3, torch.Generator().manual_seed(0))
    assert torch.allclose(found[nearest(points, found)], points)


def test_residual_kmeans_clusters_what_is_left():
    points, draw = random(80, 2), torch.Generator().manual_seed(1)
    codes, books = residual_kmeans(points, 2, 4, 5, draw)
    again = torch.Generator().manual_seed(1)
    first = kmeans(points, 4, 5, again)
    rest = points - first[nearest(points, first)]
    assert torch.equal(books[0], first)
    assert torch.equal(books[1], kmeans(rest, 4, 5, again))
    left = rest - books[1][codes[:, 1]]
    assert left.square().sum() < 0.6 * rest.square().sum()


# --- beam search ---


@pytest.fixture(scope="module")
def problem():
    """A layer [24, 16], its gram, and a start with two codebooks of 4 bits for groups of 4."""
    weight, gram = random(24, 16, seed=7), gram_of(inputs(200, 16, 8))
    return weight, gram, *start(weight, parse("2x4g4"), 5, 0)


@pytest.mark.parametrize("beam", [1, 2, 7])
def test_a_sweep_never_does_worse_for_any_output(problem, beam):
    weight, gram, codes, codebooks, scales = problem
    before = output_errors(weight, decode(codes, codebooks, scales), gram)
    found, errors = beam_search(weight, gram, codes, codebooks, scales, beam)
    assert torch.allclose(errors, output_errors(weight, decode(found, codebooks, scales), gram))
    assert (errors <= before).all()
    assert errors.sum() < 0.8 * before.sum()
    lower = beam_search(weight, gram, found, codebooks, scales, beam)[1]
    assert (lower <= errors).all()


def test_a_wide_beam_finds_more(problem):
    totals = [beam_search(*problem, beam)[1].sum() for beam in (1, 4, 16)]
    assert totals[0] > totals[1] > totals[2]


def test_a_beam_of_full_width_is_an_exhaustive_search():
    weight, gram = random(3, 4, seed=1), gram_of(inputs(50, 4, 2))
    codebooks, scales, codes = random(2, 4, 2, seed=3), random(3, seed=4).abs(), integers(4, 3, 2, 2)
    _, errors = beam_search(weight, gram, codes, codebooks, scales, 4**4)
    best = torch.full((3,), torch.inf)
    for values in itertools.product(range(4), repeat=4):
        everyone = torch.tensor(values).view(1, 2, 2).expand(3, 2, 2)
        best = torch.minimum(best, output_errors(weight, decode(everyone, codebooks, scales), gram))
    assert torch.allclose(errors, best, rtol=1e-4)


def test_outputs_are_searched_apart(problem, monkeypatch):
    """In chunks of a few outputs the codes are the same."""
    whole, _ = beam_search(*problem, 3)
    monkeypatch.setitem(search.CHUNK, "cpu", 5 * 3 * 16)
    assert torch.equal(beam_search(*problem, 3)[0], whole)


# --- Adam and the whole fit ---


def test_adam_lowers_the_objective(problem):
    weight, gram, codes, codebooks, scales = problem
    before = output_errors(weight, decode(codes, codebooks, scales), gram).sum()
    books, new = adam(weight, gram, codes, codebooks, scales, FitSettings(adam_steps=40))
    assert output_errors(weight, decode(codes, books, new), gram).sum() < 0.8 * before
    assert not torch.equal(books, codebooks)
    assert not torch.equal(new, scales)


@pytest.mark.parametrize("settings", [FitSettings(adam_steps=0), FitSettings(adam_steps=3, adam_lr=100.0)])
def test_adam_hands_back_the_best_it_came_by(problem, settings):
    weight, gram, codes, codebooks, scales = problem
    books, new = adam(weight, gram, codes, codebooks, scales, settings)
    assert torch.allclose(books, codebooks)
    assert torch.allclose(new, scales)


@pytest.mark.parametrize("text", ["2x4g4", "2x6g4", "1x8g4"])
def test_it_beats_residual_kmeans_at_the_same_bits_on_inputs_it_has_not_seen(text):
    weight, seen, unseen = random(96, 64, seed=3), gram_of(inputs(2000, 64, 1)), gram_of(inputs(2000, 64, 2))
    found = fit(weight, seen, parse(text), FitSettings(), seed=0)
    assert all(late <= early * (1 + 1e-5) for early, late in itertools.pairwise(found.errors))
    plain = decode(*start(weight, parse(text), 10, 0))
    ours = decode(found.codes, found.codebooks, found.scales)
    errors = [output_errors(weight, decoded, unseen).sum() for decoded in (ours, plain)]
    assert errors[0] < 0.6 * errors[1]


def test_outputs_of_any_size_and_all_zeros():
    weight = random(20, 16) * torch.logspace(-3, 1, 20).unsqueeze(1)
    weight[4] = 0
    found = fit(weight, torch.eye(16), parse("2x6g4"), FitSettings(dampening=0.0), 0)
    decoded = decode(found.codes, found.codebooks, found.scales)
    assert torch.isfinite(decoded).all()
    kept = [row for row in range(20) if row != 4]
    assert ((decoded - weight)[kept].norm(dim=1) < 0.5 * weight[kept].norm(dim=1)).all()


def test_one_layer_for_a_benchmark():
    weight, gram = random(32, 64), gram_of(inputs(300, 64, 0))
    layer = aqlm.fit_layer("x", weight, gram, 2, {"max_rounds": 1})
    assert (layer.bits, layer.shape, layer.codebooks.dtype) == (2, (32, 64), torch.float16)
    assert layer.fault() is None
    plain = aqlm.fit_layer("x", weight, gram, 2, {"layout": "2x4g4", "max_rounds": 0, "adam_steps": 0})
    errors = [output_errors(weight, found.weight(), gram).sum() for found in (layer, plain)]
    assert errors[0] < 0.7 * errors[1]
    assert torch.equal(layer.codes, aqlm.fit_layer("x", weight, gram, 2, {"max_rounds": 1}).codes)


# --- layouts ---


def llama_shapes(hidden, inner, cache=None):
    """(out, in) of one block of a Llama; cache: outputs of K and V."""
    cache = cache or hidden
    attention = {"q": (hidden, hidden), "k": (cache, hidden), "v": (cache, hidden), "o": (hidden, hidden)}
    return attention | {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}


TOY, SMOLLM2, QWEN_1B, LLAMA2, LLAMA3 = (
    llama_shapes(128, 256),
    llama_shapes(576, 1536, 192),
    llama_shapes(1536, 8960, 256),
    llama_shapes(4096, 11008),
    llama_shapes(4096, 14336, 1024),
)


@pytest.mark.parametrize("shapes", [TOY, SMOLLM2, QWEN_1B, LLAMA2, LLAMA3])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_every_model_has_a_layout_at_every_bits(shapes, bits):
    layout = choose("auto", bits, shapes, 16)
    assert layout.bits == bits
    assert layout.overhead(list(shapes.values()), 16) < 0.9  # more only for a checkpoint in float32


def test_the_layouts_by_name():
    found = [str(choose("auto", 2, shapes, 16)) for shapes in (TOY, SMOLLM2, QWEN_1B, LLAMA2)]
    assert found == ["2x4g4", "2x8g8", "2x8g8", "1x16g8"]
    assert str(choose("2x8g8", 2, LLAMA2, 16)) == "2x8g8"


def test_overhead_by_hand():
    # 2 codebooks × 256 codewords × 8 numbers + 576 scales, 16 bits each, over 576 × 576 weights
    assert parse("2x8g8").overhead([(576, 576)], 16) == 16 * (2 * 256 * 8 + 576) / 576**2
    layer = AdditiveLinear("x", integers(256, 576, 72, 2), random(2, 256, 8).half(), random(576).half())
    assert effective_bits({"x": layer}) == 2 + parse("2x8g8").overhead([(576, 576)], 16)


@pytest.mark.parametrize(
    ("layout", "bits", "shapes", "match"),
    [
        ("2x8g8", 2, TOY, r"2x8g8: its codebooks and scales would take 2\.91 bits .* at most 1\.25 .* as 2x4g4"),
        ("2x8g4", 4, TOY, r"take 1\.51 bits"),
        ("1x16g8", 2, QWEN_1B, r"take 1\.26 bits .* at most 0\.75 .* as 2x8g8"),
        ("4x16g8", 8, LLAMA2, r"take 1\.16 bits"),
        ("3x8g8", 2, SMOLLM2, r"3x8g8 has 3 bits a weight, the cell has 2: remedy: auto"),
        ("2x5g5", 2, TOY, r"groups of 5 do not divide the 128 inputs of q"),
        ("2x8", 2, TOY, r"params\.layout: '2x8' is no layout: one such as 2x8g8"),
        ("1x20g10", 2, TOY, r"is no layout"),
        ("0x8g8", 2, TOY, r"is no layout"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(layout, bits, shapes, match):
    with pytest.raises(UserError, match=f"methods.yaml: params.layout: .*{match}|{match}"):
        choose(layout, bits, shapes, 16)


def test_the_table_is_in_order():
    assert [size.width for size in SIZES] == sorted((size.width for size in SIZES), reverse=True)
    assert all(parse(text).bits == bits for size in SIZES for bits, text in size.layouts.items())


# --- the format ---


@pytest.mark.parametrize("bits", [3, 4, 8, 12, 16])
def test_codes_are_packed_as_the_package_does(bits):
    from aqlm.utils import pack_int_data, unpack_int_data

    codes = integers(2**bits, 4, 6, 2)
    ours = signed(codes, bits)
    theirs = pack_int_data(codes.clone(), bits)
    assert torch.equal(ours, theirs)
    assert ours.dtype == theirs.dtype
    assert torch.equal(unsigned(ours, bits).long(), codes)
    assert torch.equal(unpack_int_data(ours, bits), codes)


def write_random(source, out, text):
    """An artefact of random codes with a layout; the layers it was made of."""
    layout, tensors, layers = parse(text), read_tensors(source), []
    for seed, (name, (rows, width)) in enumerate(decoder_linears(source).items()):
        tensors.pop(f"{name}.weight")
        groups, size = width // layout.group, 2**layout.code_bits
        codes = integers(size, rows, groups, layout.codebooks, seed=seed).to(code_dtype(layout.code_bits))
        books = (random(layout.codebooks, size, layout.group, seed=seed) * 0.1).half()
        layers.append(AdditiveLinear(name, codes, books, 0.5 + random(rows, seed=seed).abs().half()))
    out.mkdir(exist_ok=True)
    write_aqlm(out, source, layers, tensors)
    return layers


@pytest.mark.parametrize("text", ["2x4g4", "2x8g8", "1x10g8"])
def test_an_artefact_is_read_back_to_the_bit(tiny_llama, tmp_path, text):
    layers, found = write_random(tiny_llama, tmp_path, text), artefacts.read_layers(tmp_path)
    assert set(found) == {layer.name for layer in layers}
    for layer in layers:
        again = found[layer.name]
        for part in ("codes", "codebooks", "scales"):
            assert torch.equal(getattr(again, part), getattr(layer, part))
            assert getattr(again, part).dtype == getattr(layer, part).dtype
        assert torch.equal(again.dense(), layer.dense())
        assert str(Layout(again.codebooks.shape[0], again.bits_a_code, again.codebooks.shape[2])) == text


@pytest.fixture
def one_numba_thread():
    """aqlm 1.1.7's CPU kernel adds to one output from several threads without a lock: with two it loses summands.

    Numba also sets how many threads torch uses when it starts; the other tests get theirs back.
    """
    import numba

    of_torch = torch.get_num_threads()
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)
    torch.set_num_threads(of_torch)


# The package multiplies in another order, in float32: 1e-5 relative. Codes of 8 bits run through its look-up tables,
# all others through its dequantization.
@pytest.mark.usefixtures("one_numba_thread")
@pytest.mark.parametrize("text", ["2x8g8", "1x8g4", "1x8g2", "2x4g4", "2x6g4", "1x10g8"])
def test_the_aqlm_package_and_the_dense_twin_agree(tiny_llama, tmp_path, text):
    from transformers import AutoModelForCausalLM

    write_random(tiny_llama, tmp_path, text)
    ids = torch.arange(5, 35)[None]
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    ours, _ = load_dense(tmp_path, "float32")
    kinds = [type(m).__module__ for name, m in theirs.named_modules() if name.endswith("_proj")]
    assert kinds == ["aqlm.inference"] * 14
    with torch.no_grad():
        logits = [model.eval()(ids).logits for model in (ours, theirs)]
    assert logit_error([logits[0][0]], [logits[1][0]]) < 1e-5


def test_broken_artefacts_are_told(tiny_llama, tmp_path):
    write_random(tiny_llama, tmp_path / "a", "2x4g4")
    name = "model.layers.0.mlp.up_proj"

    def broken(part, change):
        folder = shutil.copytree(tmp_path / "a", tmp_path / part)
        tensors = read_tensors(folder)
        tensors[f"{name}.{part}"] = change(tensors[f"{name}.{part}"])
        write_tensors(folder, tensors)
        return artefacts.read_layers(folder)

    with pytest.raises(CellError, match="up_proj: codebooks of 15 codewords, 16 are needed"):
        broken("codebooks", lambda t: t[:, :15])
    with pytest.raises(CellError, match=r"up_proj: codes .* do not belong together"):
        broken("scales", lambda t: t[1:])
    codes = artefacts.read_layers(tmp_path / "a")[name].codes
    with pytest.raises(ValueError, match="codes of another shape"):
        artefacts.with_codes(tmp_path / "a", tmp_path / "b", {name: codes[1:]})
    with pytest.raises(ValueError, match="codes outside 0 … 15"):
        artefacts.with_codes(tmp_path / "a", tmp_path / "b", {name: codes.int() + 1})


def test_other_codes_are_all_that_changes(tiny_llama, tmp_path):
    write_random(tiny_llama, tmp_path / "a", "1x8g4")
    name = "model.layers.0.mlp.up_proj"
    codes = artefacts.read_layers(tmp_path / "a")[name].codes
    artefacts.with_codes(tmp_path / "a", tmp_path / "b", {name: 255 - codes})
    before, after = read_tensors(tmp_path / "a"), read_tensors(tmp_path / "b")
    assert [key for key in before if not torch.equal(before[key], after[key])] == [f"{name}.codes"]
    assert torch.equal(artefacts.read_layers(tmp_path / "b")[name].codes, 255 - codes)


# --- the whole method ---


def job(source, out, rows, bits=2, **params):
    out.mkdir(exist_ok=True)
    return QuantizeJob(source, out, bits, QUICK | params, rows, seed=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_llama, conversations):
    out = tmp_path_factory.mktemp("aqlm")
    return out, aqlm.quantize(job(tiny_llama, out, conversations))


def test_what_it_wrote(made, tiny_llama, conversations):
    out, facts = made
    proof = prove(out, tiny_llama, {}, conversations, bits=2)
    shapes = list(decoder_linears(tiny_llama).values())
    assert proof["effective_bits"] == pytest.approx(2 + parse("2x4g4").overhead(shapes, 16))
    assert proof["stored_bits"] == pytest.approx(proof["effective_bits"] + 2)  # 4-bit codes take a byte each
    assert facts["layout"] == "2x4g4"
    assert facts["layer_error"] < 0.8 * facts["start_error"]
    assert facts["tuned_block_error"] < facts["block_error"]


def test_the_norms_are_trained_and_the_embeddings_kept(made, tiny_llama):
    source, found = read_tensors(tiny_llama), read_tensors(made[0])
    assert torch.equal(source["model.embed_tokens.weight"], found["model.embed_tokens.weight"])
    assert not torch.equal(
        source["model.layers.1.input_layernorm.weight"], found["model.layers.1.input_layernorm.weight"]
    )


def test_training_on_the_answers_keeps_the_codes(made, tiny_llama, tmp_path, conversations):
    facts = aqlm.quantize(job(tiny_llama, tmp_path, conversations, steps=6))
    assert facts["final_loss"] < facts["first_loss"]
    plain, trained = artefacts.read_layers(made[0]), artefacts.read_layers(tmp_path)
    for name, layer in trained.items():
        assert torch.equal(layer.codes, plain[name].codes)
        assert not torch.equal(layer.codebooks, plain[name].codebooks)
    norms = [read_tensors(folder)["model.norm.weight"] for folder in (made[0], tmp_path)]
    assert not torch.equal(*norms)


def test_biases_and_bfloat16(tiny_llama, tmp_path, conversations):
    """Qwen2.5 has biases on Q, K and V: they are trained with the rest, and stored."""
    source = shutil.copytree(tiny_llama, tmp_path / "source")
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in read_tensors(source).items()}
    for name in decoder_linears(source):
        if "self_attn" in name:
            tensors[f"{name}.bias"] = torch.full((tensors[f"{name}.weight"].shape[0],), 0.1, dtype=torch.bfloat16)
    write_tensors(source, tensors)
    text = (source / "config.json").read_text().replace('"float16"', '"bfloat16"')
    (source / "config.json").write_text(text.replace('"attention_bias": false', '"attention_bias": true'))
    aqlm.quantize(job(source, tmp_path / "out", conversations, bits=4))
    found = read_tensors(tmp_path / "out")
    assert found["model.layers.0.self_attn.q_proj.codebooks"].dtype == torch.bfloat16
    assert not torch.equal(
        found["model.layers.0.self_attn.q_proj.bias"], tensors["model.layers.0.self_attn.q_proj.bias"]
    )
    assert prove(tmp_path / "out", source, {"logit_error": 0.6}, conversations, bits=4)["quantized_layers"] == 14


def additive_block(source, rows, out):
    """The first block with additive layers in it, and what it gave before."""
    calibration = prepare(job(source, out, rows))
    block = next(walk(calibration.model, calibration.batches, set(calibration.names), "test"))
    grams, targets = block.grams(), block.outputs()
    for name, linear in block.linears.items():
        found = fit(linear.weight, grams[name], parse("2x4g4"), FitSettings(max_rounds=1, adam_steps=5), 0)
        block.module.set_submodule(name.removeprefix(f"{block.name}."), AdditiveModule(found, linear.bias))
    return block, targets


def test_training_a_block_brings_its_output_nearer(tiny_llama, conversations, tmp_path):
    block, targets = additive_block(tiny_llama, conversations, tmp_path)
    norm = block.module.input_layernorm.weight.detach().clone()
    before, after = tune_block(block, targets, 30, 1e-3, 0)
    assert after < 0.95 * before
    assert tune_block(block, targets, 0, 1e-3, 0) == (after, after)
    assert not torch.equal(block.module.input_layernorm.weight, norm)


def test_training_that_makes_a_block_worse_is_undone(tiny_llama, conversations, tmp_path):
    block, targets = additive_block(tiny_llama, conversations, tmp_path)
    start = {name: part.clone() for name, part in block.module.state_dict().items()}
    before, after = tune_block(block, targets, 5, 1e4, 0)
    assert before == after
    assert all(torch.equal(part, start[name]) for name, part in block.module.state_dict().items())


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"layout": "2x8g8"}, r"layout: 2x8g8: its codebooks and scales would take 2\.\d+ bits"),
        ({"beam": 0}, r"params\.beam: 0: a whole number of at least 1"),
        ({"tolerance": -1.0}, r"params\.tolerance: -1\.0: a number of at least 0"),
        ({"finetune_steps": -1}, r"finetune_steps: -1: a whole number of at least 0"),
    ],
)
def test_what_is_refused_before_any_work(tiny_llama, tmp_path, conversations, params, match):
    with pytest.raises(UserError, match=match):
        aqlm.quantize(job(tiny_llama, tmp_path, conversations, **params))
    assert not list(tmp_path.iterdir())
