"""QUIK: GPTQ's rounding against a naive one and llm-compressor's, outlier columns, clipping, and the artefact."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from bitsafe.artefacts.activations import Rule, fake_quantize, read_activations
from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.check import prove
from bitsafe.artefacts.checkpoint import read_tensors, storage_dtype, write_tensors
from bitsafe.artefacts.grids import AffineGrid, affine_grid
from bitsafe.artefacts.kinds.outliers import OutlierLinear, restored, stored
from bitsafe.artefacts.load import load_dense
from bitsafe.artefacts.sizes import effective_bits
from bitsafe.errors import CellError, UserError
from bitsafe.quantizers import quik
from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.quik import clipped_grid, fit_layer, outlier_columns
from bitsafe.quantizers.shared.blocks import walk
from bitsafe.quantizers.shared.calibration import prepare
from bitsafe.quantizers.shared.second_order import inverse_factor, round_columns


def problem(rows=24, width=300, seed=0):
    """A weight [rows, width] and the Gram matrix of correlated inputs, two of them far larger than the others."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(1000, width, generator=draw) @ torch.randn(width, width, generator=draw) / width**0.5
    inputs[:, [7, width - 20]] *= 20
    return torch.randn(rows, width, generator=draw), inputs.T @ inputs / len(inputs), inputs.abs().amax(0)


def objective(weight, rounded, gram):
    """‖(W − Ŵ) X‖² / tokens."""
    error = (weight - rounded).double()
    return float((error @ gram.double() * error).sum())


# --- the rounding ---


def test_the_error_of_a_column_moves_the_next_by_hand():
    """H = [[1, ½], [½, 1]]: rounding 0.4 to 0 moves the second weight by ½ · 0.4, from 1.4 to 1.6, and so to 2."""
    weight, gram, grid = torch.tensor([[0.4, 1.4]]), torch.tensor([[1.0, 0.5], [0.5, 1.0]]), torch.ones(1, 1)
    factor = inverse_factor(gram, 1e-12, "x")
    assert round_columns(weight, factor, AffineGrid(4, 2, grid), 2)[0].tolist() == [[8, 10]]
    codes, kept = round_columns(weight, factor, AffineGrid(4, 1, grid), 1)
    assert codes.tolist() == [[8]]
    assert kept.item() == pytest.approx(1.6)


def naive(weight, gram, damping, grid, count):
    """Optimal brain quantization in a fixed order: the inverse Hessian of what is left, inverted anew a column."""
    weight, hessian = weight.double().clone(), gram.double()
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    column, codes = AffineGrid(grid.bits, 1, grid.scale), []
    for j in range(count):
        inverse = torch.linalg.inv(hessian[j:, j:])
        codes.append(column.nearest(weight[:, j : j + 1]))
        error = (weight[:, j : j + 1] - column.dequantize(codes[-1])) / inverse[0, 0]
        weight[:, j:] -= error * inverse[0]
    return torch.cat(codes, 1), weight[:, count:]


@pytest.mark.parametrize(("bits", "count"), [(4, 300), (3, 290), (2, 130), (4, 128)])
def test_a_naive_reference_gives_the_same_codes(bits, count):
    weight, gram, _ = problem()
    grid = affine_grid(weight[:, :count], bits, -1, symmetric=True)
    codes, kept = round_columns(weight, inverse_factor(gram, 0.01, "x"), grid, count)
    expected, left = naive(weight, gram, 0.01, grid, count)
    assert torch.equal(codes, expected)
    torch.testing.assert_close(kept, left)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_llm_compressor_rounds_the_same_without_outliers_and_clipping(bits):
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight

    from bitsafe.artefacts.formats.compressed import weight_args

    weight, gram, _ = problem()
    layer = fit_layer("x", weight, gram, bits, {"outliers": 0.0, "clip_search": 0, "activations": False})
    scale = layer.grid.scale.float()[None]
    args = weight_args(bits, -1, True)
    theirs = quantize_weight(weight[None].clone(), gram[None].clone(), scale, torch.zeros_like(scale), None, args)[0][0]
    assert (layer.grid.nearest(theirs) == layer.codes).float().mean() > 0.999  # theirs is in float32
    assert objective(weight, layer.weight(), gram) <= 1.001 * objective(weight, theirs, gram)


def test_outliers_take_up_the_errors_of_the_others():
    """Better than rounding to nearest with the same columns kept, and than GPTQ that leaves those as they were."""
    weight, gram, peak = problem()
    ours = fit_layer("x", weight, gram, 3, {}, peak=peak)
    assert {7, 280} <= set(ours.columns.tolist())
    kept = ours.columns.long()
    nearest = clipped_grid(weight, 3, 80, torch.float16)
    rtn = nearest.dequantize(nearest.nearest(weight))
    rtn[:, kept] = weight[:, kept]
    frozen = ours.weight()
    frozen[:, kept] = weight[:, kept]
    cost = objective(weight, ours.weight(), gram)
    assert cost < 0.7 * objective(weight, rtn, gram)
    assert cost < 0.99 * objective(weight, frozen, gram)
    assert cost < 0.7 * objective(weight, fit_layer("x", weight, gram, 3, {"outliers": 0.0}).weight(), gram)


def test_inputs_that_calibration_never_saw_are_rounded_to_nearest():
    weight, gram, _ = problem(width=40)
    gram[5], gram[:, 5] = 0, 0
    layer = fit_layer("x", weight, gram, 4, {"outliers": 0.0})
    assert torch.equal(layer.codes[:, 5:6], AffineGrid(4, 1, layer.grid.scale).nearest(weight[:, 5:6]))
    with pytest.raises(CellError, match=r"x: no Cholesky factor .*dampening"):
        fit_layer("x", weight, torch.zeros(40, 40), 4, {})


# --- outliers and clipping ---


def test_the_number_of_outliers_is_a_multiple_of_eight():
    found = {width: len(outlier_columns(torch.rand(width), 1 / 16)) for width in (32, 64, 128, 576, 1536, 4096)}
    assert found == {32: 0, 64: 8, 128: 8, 576: 40, 1536: 96, 4096: 256}
    assert len(outlier_columns(torch.rand(128), 0.0)) == 0
    assert len(outlier_columns(torch.rand(8), 0.99)) == 7


def test_the_largest_inputs_are_outliers_and_of_equal_ones_the_first():
    peak = torch.ones(64)
    peak[[50, 3]] = 9.0
    assert outlier_columns(peak, 1 / 8).tolist() == [0, 1, 2, 3, 4, 5, 6, 50][:8]


def test_clipping_is_the_best_of_the_ranges_row_by_row():
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    weight[2] = 0.0
    weight[3, 0] = 20.0
    whole, ours = affine_grid(weight, 4, -1, symmetric=True), clipped_grid(weight, 4, 80, torch.float16)
    tried = [AffineGrid(4, 64, (whole.scale.float() * (1 - k / 100)).half()) for k in range(80)]
    errors = torch.stack([(g.dequantize(g.nearest(weight)) - weight).square().sum(1) for g in tried])
    best = errors.argmin(0)
    assert torch.equal(ours.scale[:, 0], torch.stack([tried[k].scale[row, 0] for row, k in enumerate(best)]))
    assert best[2] == 0
    assert (best[[0, 1, 4, 5]] > 0).all()
    for steps in (0, 1):
        assert torch.equal(clipped_grid(weight, 4, steps, torch.float16).scale, whole.scale)


# --- the layer and its file ---


def layer(bits=4, name="model.layers.0.mlp.up_proj", **params):
    weight, gram, peak = problem(rows=16, width=128)
    return fit_layer(name, weight, gram, bits, params, peak=peak)


def test_bits_by_hand():
    """16 × 120 codes; 16 fp16 scales; 16 × 8 fp16 outliers; 8 int32 indices."""
    extra = 16 * 16 + 16 * 8 * 16 + 8 * 32
    assert effective_bits({"x": layer()}) == (16 * 120 * 4 + extra) / (16 * 128)
    wide = layer(name="model.layers.0.mlp.down_proj")
    assert effective_bits({"x": wide}) == (16 * 120 * 8 + extra) / (16 * 128)
    assert (wide.bits, wide.grid.bits) == (4, 8)  # the cell's, and its own


def test_where_only_weights_are_rounded_no_layer_is_wider():
    down = "model.layers.0.mlp.down_proj"
    assert layer(4, down, activations=False).grid.bits == 4
    assert [layer(bits, down).grid.bits for bits in (8, 3, 2)] == [8, 3, 2]
    assert layer(4, eight_bit=["up_proj"]).grid.bits == 8


@pytest.mark.parametrize("made", [layer(), layer(3), layer(2, outliers=0.0), layer(4, "model.layers.0.mlp.down_proj")])
def test_what_is_stored_comes_back(made):
    again = restored(made.name, stored(made), {"bits": made.bits})
    assert torch.equal(again.codes, made.codes)
    assert torch.equal(again.weight(), made.weight())
    assert (again.bits, again.grid.bits, again.shape) == (made.bits, made.grid.bits, (16, 128))
    assert (again.outliers() is None) == (len(made.columns) == 0)
    assert again.fault() is None
    assert again.code_values == 2**made.grid.bits


def test_the_weight_by_hand():
    grid = AffineGrid(2, 2, torch.tensor([[0.5], [2.0]]))
    codes, kept = torch.tensor([[0, 3], [2, 1]], dtype=torch.uint8), torch.tensor([[9.0], [-9.0]]).half()
    found = OutlierLinear("x", codes, grid, torch.tensor([1], dtype=torch.int32), kept, 2)
    assert found.weight().tolist() == [[-1.0, 9.0, 0.5], [0.0, -9.0, -2.0]]


# --- the artefact ---


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_llama, conversations):
    root = tmp_path_factory.mktemp("quik")
    for bits, activations in ((8, True), (4, True), (4, False), (3, True), (2, True)):
        out = root / f"{bits}{activations}"
        out.mkdir()
        facts = quik.quantize(QuantizeJob(tiny_llama, out, bits, {"activations": activations}, conversations))
        assert facts["weight_only"] == (not activations or bits < 4)
    return root


@pytest.mark.parametrize(
    ("name", "expected"),
    # a share of 15/16 of the codes, 16 bits for the rest, int32 indices and a scale a row: near 1.25 beside the codes
    [("8True", 8.75), ("4True", 5.75), ("4False", 5.0), ("3True", 4.063), ("2True", 3.125)],
)
def test_every_cell_passes_its_proof(made, name, expected, tiny_llama, conversations):
    facts = prove(made / name, tiny_llama, {"logit_error": 1.2}, conversations, bits=int(name[0]))
    assert facts["effective_bits"] == pytest.approx(expected, abs=0.13)
    assert facts["effective_bits"] <= facts["stored_bits"] < facts["effective_bits"] + 0.3


def test_activations_are_rounded_at_8_and_4_bits_only(made):
    assert read_activations(made / "4True").inputs == Rule(4, symmetric=False)
    assert read_activations(made / "4True").rule("model.layers.1.mlp.down_proj") == Rule(8, symmetric=False)
    assert read_activations(made / "8True").inputs == Rule(8, symmetric=False)
    assert all(read_activations(made / name) is None for name in ("4False", "3True", "2True"))


def test_outlier_inputs_are_left_as_they_are(made):
    model, _ = load_dense(made / "4True", "float32")
    name = "model.layers.1.self_attn.q_proj"
    module, found = model.get_submodule(name), read_layers(made / "4True")[name]
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(3))
    x[:, found.outliers()] *= 1000
    with torch.no_grad():
        assert torch.equal(module(x), F.linear(fake_quantize(x, Rule(4, False), found.outliers()), found.weight()))


def test_it_beats_rounding_on_its_own_objective(made, tiny_llama, conversations):
    """The inputs of the first block, which no earlier layer's rounding has moved."""
    ready = prepare(QuantizeJob(tiny_llama, made, 3, {}, conversations))
    block = next(walk(ready.model, ready.batches, set(ready.names), "test"))
    source, found = read_tensors(tiny_llama), read_layers(made / "3True")
    for name in [f"model.layers.0.self_attn.{part}_proj" for part in "qkv"]:
        weight, gram = source[f"{name}.weight"].float(), block.grams()[name]
        grid = affine_grid(weight, 3, -1)
        ours, theirs = (
            objective(weight, w, gram) for w in (found[name].weight(), grid.dequantize(grid.nearest(weight)))
        )
        assert ours < 0.6 * theirs


def test_one_pass_gives_both_statistics(tiny_llama, conversations, tmp_path):
    ready = prepare(QuantizeJob(tiny_llama, tmp_path, 4, {}, conversations))
    block = next(walk(ready.model, ready.batches, set(ready.names), "test"))
    name, seen = "model.layers.0.mlp.down_proj", []
    hook = block.linears[name].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].flatten(0, 1)))
    block.outputs()
    hook.remove()
    x, found = torch.cat(seen), block.statistics()[name]
    assert torch.equal(found.peak, x.abs().amax(0))
    torch.testing.assert_close(found.gram, x.T @ x / len(x))
    assert torch.equal(block.grams()[name], found.gram)


def test_a_bfloat16_checkpoint(tiny_llama, tmp_path, conversations):
    source = shutil.copytree(tiny_llama, tmp_path / "source")
    write_tensors(source, {name: t.to(torch.bfloat16) for name, t in read_tensors(source).items()})
    (source / "config.json").write_text((source / "config.json").read_text().replace('"float16"', '"bfloat16"'))
    (tmp_path / "out").mkdir()
    quik.quantize(QuantizeJob(source, tmp_path / "out", 4, {}, conversations, dtype="bfloat16"))
    assert storage_dtype(tmp_path / "out") == torch.bfloat16
    prove(tmp_path / "out", source, {"logit_error": 0.7}, conversations, bits=4, dtype="bfloat16")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("columns", lambda t: t.flip(0), "outlier columns that are not ascending"),
        ("columns", lambda t: t + 1000, "outlier columns that are not ascending"),
        ("kept", lambda t: t[:, :3], "8 outlier columns, but weights"),
        ("scale", lambda t: t * float("nan"), "not finite"),
    ],
)
def test_a_broken_layer_is_caught_and_named(made, tmp_path, part, change, message):
    folder, name = shutil.copytree(made / "4True", tmp_path / "copy"), "model.layers.1.self_attn.v_proj"
    tensors = read_tensors(folder)
    tensors[f"{name}.{part}"] = change(tensors[f"{name}.{part}"])
    write_tensors(folder, tensors)
    with pytest.raises(CellError, match=f"{name}: .*{message}"):
        read_layers(folder)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"outliers": 1.0}, r"params\.outliers: 1.0: a share"),
        ({"clip_search": 100}, r"params\.clip_search: 100: .* at most 99"),
        ({"eight_bit": "down_proj"}, r"params\.eight_bit: 'down_proj': a list of"),
        ({"dampening": 0}, r"params\.dampening: 0: a number above 0"),
    ],
)
def test_parameters_out_of_range(params, message, tiny_llama, tmp_path, conversations):
    with pytest.raises(UserError, match=message):
        quik.quantize(QuantizeJob(tiny_llama, tmp_path, 4, params, conversations))
