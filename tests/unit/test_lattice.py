"""QuIP#: its codebooks, rotations and feedback against naive ones, and its layers on disk."""

import math
import shutil

import pytest
import torch

from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.check import prove
from bitsafe.artefacts.checkpoint import read_tensors, write_tensors
from bitsafe.artefacts.formats.words import pack_flags, unpack_flags
from bitsafe.artefacts.kinds import lattice as kind
from bitsafe.artefacts.load import load_dense
from bitsafe.errors import CellError, UserError
from bitsafe.quantizers import quip_sharp
from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.lattice import e8, e8p
from bitsafe.quantizers.lattice.codec import SCALES, decode, encode, unit_scale
from bitsafe.quantizers.lattice.hadamard import orthogonal, random_signs, rotate_matrix, rotate_matrix_back
from bitsafe.quantizers.lattice.ldlq import block_feedback, damped, ldlq


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated_gram(size, seed=0):
    """X Xᵀ / tokens of inputs that share a few directions, float32 [size, size]."""
    mixing = gaussian(size, size, seed=seed) * torch.logspace(0, -2, size)
    inputs = mixing @ gaussian(size, 4 * size, seed=seed + 1)
    return inputs @ inputs.T / (4 * size)


# --- codebooks ---


def in_e8(x):
    """All integers or all half-odd, with an even sum, by row."""
    whole, half = (x % 1 == 0).all(1), (x % 1 == 0.5).all(1)
    return (whole | half) & (x.sum(1) % 2 == 0)


def test_e8p_is_65536_points_of_the_shifted_lattice():
    points = e8p.points()
    assert points.shape == (65536, 8) and len(points.unique(dim=0)) == 65536
    assert in_e8(points - 0.25).all()


def test_e8p_table_is_227_short_rows_and_29_longer_ones():
    norms = e8p.magnitudes().square().sum(1)
    assert (len(norms), int((norms <= 10).sum()), int((norms == 12).sum())) == (256, 227, 29)
    assert len(e8p.magnitudes().unique(dim=0)) == 256


def test_e8p_code_by_hand():
    # row 0 is eight halves (sum 4, even); minus on coordinates 0 and 2, so the eighth is plus; shift +1/4
    code = torch.tensor([(1 | 4) << 1], dtype=torch.int16)
    assert e8p.decode(code).tolist() == [[-0.25, 0.75, -0.25, 0.75, 0.75, 0.75, 0.75, 0.75]]
    # minus on coordinate 0 alone: parity puts the second on the eighth; shift −1/4
    code = torch.tensor([1 << 1 | 1], dtype=torch.int16)
    assert e8p.decode(code).tolist() == [[-0.75, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, -0.75]]


@pytest.mark.parametrize("spread", [0.2, 1.0, 3.0])
def test_e8p_search_is_exact(spread):
    x = spread * gaussian(1500, 8)
    found = e8p.decode(e8p.nearest(x)).double()
    best = torch.cdist(x.double(), e8p.points().double()).amin(1)
    assert torch.allclose((x - found).norm(dim=1), best, atol=1e-6)


def test_every_e8p_point_is_its_own_nearest():
    codes = e8p.nearest(e8p.points())
    assert torch.equal(codes.to(torch.int64) & 0xFFFF, torch.arange(65536))


def test_one_bit_codebook_is_the_shortest_points_of_e8():
    points = e8.points()
    assert len(points.unique(dim=0)) == 256 and in_e8(points).all()
    norms = points.square().sum(1)
    assert [int((norms == norm).sum()) for norm in (0, 2, 4)] == [1, 240, 15]
    x = gaussian(500, 8)
    assert torch.equal(e8.nearest(x).long(), torch.cdist(x, points).argmin(1))


def test_more_bits_leave_less_error_and_the_scales_are_near_their_best():
    x, errors = gaussian(8192, 8, seed=5), []
    for bits in (2, 3, 4):
        at = []
        for factor in (0.93, 1.0, 1.07):
            scale = factor * unit_scale(bits)
            at.append(float((x - decode(*encode(x, scale, bits), scale)).square().mean()))
        assert at[1] < at[0] and at[1] < at[2]
        errors.append(at[1])
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[0] < 0.095 and len(SCALES) == 3


# --- rotations ---


@pytest.mark.parametrize("size", [1, 8, 24, 96, 128, 256, 320, 576, 1536])
def test_the_transform_is_orthogonal_flat_and_its_own_inverse(size):
    matrix = orthogonal(torch.eye(size))
    assert torch.allclose(matrix @ matrix.T, torch.eye(size), atol=2e-6)
    assert torch.allclose(matrix @ matrix, torch.eye(size), atol=2e-6)
    assert matrix.abs().max() <= math.sqrt(2 / size) + 1e-6
    if size & (size - 1) == 0:
        assert torch.allclose(matrix.abs(), torch.full_like(matrix, size**-0.5))


def test_the_transform_is_the_kronecker_product():
    order, odd = 8, 3
    sylvester = torch.ones(1, 1)
    while len(sylvester) < order:
        sylvester = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), sylvester)
    angle = 2 * math.pi / odd * torch.outer(torch.arange(odd), torch.arange(odd))
    hartley = (angle.cos() + angle.sin()) / math.sqrt(odd)
    assert torch.allclose(orthogonal(torch.eye(24)), torch.kron(sylvester / math.sqrt(order), hartley), atol=1e-6)


def test_a_rotated_matrix_comes_back_and_its_outliers_are_spread():
    weight = gaussian(96, 576)
    weight[3, 7] = 1000.0
    generator = torch.Generator().manual_seed(0)
    rows, columns = random_signs(96, generator), random_signs(576, generator)
    rotated = rotate_matrix(weight, rows, columns)
    assert rotated.abs().max() < 30
    assert torch.allclose(rotate_matrix_back(rotated, rows, columns), weight, atol=2e-4)


# --- feedback ---


def to_integers(x):
    return x.round(), x.round()


def column_by_column(weight, hessian):
    """GPTQ's own recursion: round a column, move what is left of it to the later ones by the inverse Hessian."""
    weight, inverse = weight.double().clone(), torch.linalg.inv(hessian.double())
    rounded = torch.zeros_like(weight)
    for i in range(weight.shape[1]):
        rounded[:, i] = weight[:, i].round()
        left = (weight[:, i] - rounded[:, i]) / inverse[0, 0]
        weight[:, i:] -= left[:, None] * inverse[0]
        inverse = inverse[1:, 1:] - torch.outer(inverse[1:, 0], inverse[0, 1:]) / inverse[0, 0]
    return rounded


def test_blocks_of_one_column_are_gptq():
    weight, hessian = 3 * gaussian(16, 24).double(), damped(correlated_gram(24), 0.01)
    rounded, codes = ldlq(weight, hessian, to_integers, 1)
    assert torch.equal(rounded, column_by_column(weight, hessian))
    assert torch.equal(torch.cat(codes, dim=1), rounded)


def test_blocks_of_eight_are_the_best_linear_correction():
    """Each block is rounded where the later ones, left free, would best make up for the earlier ones' errors."""
    weight, hessian = 3 * gaussian(16, 32).double(), damped(correlated_gram(32), 0.01)
    expected = torch.zeros_like(weight)
    for start in range(0, 32, 8):
        error = weight[:, :start] - expected[:, :start]
        move = error @ hessian[:start, start:] @ torch.linalg.inv(hessian[start:, start:])
        expected[:, start : start + 8] = (weight[:, start:] + move)[:, :8].round()
    rounded, _ = ldlq(weight, hessian, to_integers, 8)
    assert torch.equal(rounded, expected)


def test_the_feedback_is_a_block_decomposition():
    hessian = damped(correlated_gram(32), 0.01)
    feedback = block_feedback(hessian, 8)
    unit = torch.linalg.inv(feedback + torch.eye(32, dtype=torch.float64))
    diagonal = unit @ hessian @ unit.T
    inside = torch.block_diag(*[torch.ones(8, 8, dtype=torch.float64)] * 4)
    assert torch.allclose(diagonal * (1 - inside), torch.zeros_like(diagonal), atol=1e-9)
    assert torch.equal(feedback * inside, torch.zeros_like(feedback))


@pytest.mark.parametrize("block", [1, 8])
def test_feedback_beats_rounding_to_nearest(block):
    weight, hessian = 3 * gaussian(64, 64).double(), damped(correlated_gram(64), 0.01)
    rounded, _ = ldlq(weight, hessian, to_integers, block)
    ours, theirs = (float(((e @ hessian) * e).sum()) for e in (weight - rounded, weight - weight.round()))
    assert ours < 0.6 * theirs


# --- layers ---


def fitted(bits, out=48, width=96, seed=0, weight=None):
    weight = gaussian(out, width, seed=7) if weight is None else weight
    return weight, quip_sharp.fit_layer("a.layer", weight, correlated_gram(width), bits, {}, seed)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_layer_comes_back_from_its_stored_parts(bits):
    weight, layer = fitted(bits, out=50)
    parts = kind.stored(layer)
    again = kind.restored("a.layer", parts, {})
    assert (again.bits, again.shape) == (bits, tuple(weight.shape))
    assert torch.equal(again.dense(), layer.dense())
    size = 8 * sum(part.numel() * part.element_size() for part in parts.values())
    assert layer.code_bits == bits * weight.numel()
    assert layer.extra_bits == 50 + 96 + 32 * len(layer.scale)
    assert size == layer.code_bits + layer.extra_bits + 6  # 50 signs take seven bytes


def test_signs_by_hand():
    signs = torch.tensor([True, False, False, True, False, False, False, False, True])
    packed = pack_flags(signs)
    assert packed.tolist() == [9, 1]
    assert torch.equal(unpack_flags(packed, 9), signs)
    with pytest.raises(ValueError, match="2 bytes for 17 flags"):
        unpack_flags(packed, 17)


def test_a_layer_beats_rounding_without_feedback_and_more_bits_beat_fewer():
    gram, losses = correlated_gram(96), []
    for bits in (2, 3, 4):
        weight, layer = fitted(bits)
        plain = quip_sharp.fit_layer("a.layer", weight, torch.eye(96), bits, {}, 0)
        ours, theirs = (float(((e @ gram) * e).sum()) for e in (layer.weight() - weight, plain.weight() - weight))
        assert ours < 0.5 * theirs
        losses.append(ours)
    assert losses[0] > 2 * losses[1] > 4 * losses[2]


def test_the_seed_and_the_name_choose_the_signs():
    _, layer = fitted(2)
    _, same = fitted(2)
    _, other = fitted(2, seed=1)
    assert torch.equal(layer.codes, same.codes) and torch.equal(layer.row_signs, same.row_signs)
    assert not torch.equal(layer.column_signs, other.column_signs)


def test_a_layer_of_zeros_or_one_that_never_saw_anything():
    _, zeros = fitted(4, weight=torch.zeros(16, 96))
    assert zeros.fault() is None and zeros.weight().abs().max() < 1e-30
    weight = gaussian(16, 96)
    blind = quip_sharp.fit_layer("a.layer", weight, torch.zeros(96, 96), 4, {}, 0)
    assert (blind.weight() - weight).square().mean() < 0.02


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_llama, conversations):
    root = tmp_path_factory.mktemp("lattice")
    for bits in (2, 3, 4):
        (root / str(bits)).mkdir()
        quip_sharp.quantize(QuantizeJob(tiny_llama, root / str(bits), bits, {}, conversations, 3))
    return root


def test_artefacts_of_all_bits(made, tiny_llama, conversations):
    proofs = {b: prove(made / str(b), tiny_llama, {}, conversations, bits=b) for b in (2, 3, 4)}
    assert proofs[4]["logit_error"] < proofs[3]["logit_error"] < proofs[2]["logit_error"]
    for bits, proof in proofs.items():
        assert bits < proof["effective_bits"] < bits + 0.03
        assert proof["stored_bits"] == proof["effective_bits"]


def test_what_is_loaded_is_what_was_fitted(made, tiny_llama):
    """The model computes with each layer's own weight, to the bit."""
    model, _ = load_dense(made / "3", "float32")
    for name, layer in read_layers(made / "3").items():
        assert torch.equal(model.get_submodule(name).weight, layer.weight())


def test_a_broken_artefact_is_named(made, tmp_path):
    folder = shutil.copytree(made / "3", tmp_path / "copy")
    tensors, name = read_tensors(folder), "model.layers.0.mlp.up_proj"
    broken = tensors | {f"{name}.scale": tensors[f"{name}.scale"][:1]}
    write_tensors(folder, broken)
    with pytest.raises(CellError, match="up_proj: 1 scales for 3 bits"):
        read_layers(folder)
    write_tensors(folder, tensors | {f"{name}.row_signs": tensors[f"{name}.row_signs"][:3]})
    with pytest.raises(CellError, match="3 bytes for 256 flags"):
        read_layers(folder)


def test_widths_that_are_no_multiple_of_eight_and_no_dampening(tiny_llama, tmp_path, conversations):
    with pytest.raises(UserError, match=r"params\.dampening: 0: a number above 0"):
        quip_sharp.quantize(QuantizeJob(tiny_llama, tmp_path, 2, {"dampening": 0}, conversations))
    source = shutil.copytree(tiny_llama, tmp_path / "source")
    tensors = read_tensors(source)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(256, 100)
    write_tensors(source, tensors)
    with pytest.raises(UserError, match="up_proj has 100 inputs; quip_sharp rounds 8 at a time"):
        quip_sharp.quantize(QuantizeJob(source, tmp_path / "out", 2, {}, conversations))
