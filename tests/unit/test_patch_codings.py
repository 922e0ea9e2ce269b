"""How codes of each kind of layer stand for weights that training moves."""

from dataclasses import replace

import pytest
import torch
from test_patch_training import PAIRS, changed, everything, snip_once, tiny
from torch import nn

from bitsafe.artefacts.additive import AdditiveLinear, decode
from bitsafe.artefacts.grids import AffineGrid, affine_grid
from bitsafe.artefacts.kinds.delta import DeltaLinear
from bitsafe.artefacts.kinds.outliers import OutlierLinear
from bitsafe.artefacts.layers import QuantizedLinear
from bitsafe.patches.base import Settings
from bitsafe.patches.shared.export import changes, export_error
from bitsafe.patches.training.coding import CODINGS, OnCodebooks, OnColumns, OnGrid
from bitsafe.patches.training.latent import attach
from bitsafe.patches.training.position import Free
from bitsafe.patches.training.rounding import Beside, DenseTwin, OnCodes
from bitsafe.patches.training.trainer import Trainer


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def additive(out: int = 16, width: int = 32, books: int = 2, bits: int = 4, group: int = 4, seed: int = 0):
    draw = generator(seed)
    codebooks = torch.randn(books, 2**bits, group, generator=draw) / torch.arange(1, books + 1).view(-1, 1, 1)
    codes = torch.randint(2**bits, (out, width // group, books), generator=draw, dtype=torch.uint8)
    return AdditiveLinear("a", codes, codebooks, 0.5 + torch.rand(out, generator=draw))


def outliers(seed: int = 0) -> OutlierLinear:
    codes = torch.randint(16, (8, 12), generator=generator(seed), dtype=torch.uint8)
    grid = AffineGrid(4, 12, 0.1 + torch.rand(8, 1, generator=generator(seed)))
    kept = torch.randn(8, 4, generator=generator(seed)).half()
    return OutlierLinear("o", codes, grid, torch.tensor([1, 4, 9, 15], dtype=torch.int32), kept, 4)


def on_grid(out: int = 16, width: int = 32, bits: int = 4, name: str = "g") -> QuantizedLinear:
    weight = torch.randn(out, width, generator=generator(3))
    grid = affine_grid(weight, bits, 16)
    return QuantizedLinear(name, grid.nearest(weight), grid)


LAYERS = [on_grid(), outliers(), additive(), additive(books=1, bits=8), additive(books=3, bits=3, group=2)]


@pytest.mark.parametrize("layer", LAYERS)
def test_the_centre_and_any_point_of_a_cell_have_the_layers_own_codes(layer):
    coding = CODINGS[type(layer)](layer)
    for point in (coding.centre(), coding.uniform(generator())):
        assert torch.equal(coding.nearest(point), layer.codes)
    assert torch.equal(coding.whole(coding.centre()), layer.weight())
    assert torch.equal(coding.whole(coding.decode(layer.codes)), layer.weight())
    spread = coding.uniform(generator()) - coding.centre()
    assert (spread != 0).float().mean() > 0.9 and (coding.width() > 0).all()


@pytest.mark.parametrize("layer", LAYERS)
def test_what_is_untouched_need_not_be_looked_at(layer):
    coding = CODINGS[type(layer)](layer)
    point, touched = coding.uniform(generator()), torch.zeros_like(coding.centre(), dtype=torch.bool)
    assert torch.equal(coding.nearest(point, touched), layer.codes)
    touched[3] = True
    point[3] += 0.5
    assert torch.equal(coding.nearest(point, touched), coding.nearest(point))
    assert (coding.nearest(point) != layer.codes).any()


def test_one_codebook_of_all_combinations_is_searched_exhaustively():
    layer = additive(books=1, bits=5, group=3, width=24)
    points = torch.randn(16, 24, generator=generator(1))
    found = OnCodebooks(layer).nearest(points)
    words = layer.codebooks[0][None, None] * layer.scales.view(-1, 1, 1, 1)
    distances = (points.view(16, 8, 1, 3) - words).square().sum(-1)
    assert torch.equal(found[..., 0].long(), distances.argmin(-1))


def test_several_codebooks_come_no_further_from_a_point_and_no_single_change_gets_nearer_to_a_start():
    layer = additive()
    coding = OnCodebooks(layer)
    points = coding.centre() + 0.3 * torch.randn(16, 32, generator=generator(1))
    before, after = layer.weight(), coding.decode(coding.nearest(points))
    groups = [(points - weight).unflatten(1, (-1, 4)).square().sum(-1) for weight in (before, after)]
    assert (groups[1] <= groups[0] + 1e-6).all() and (groups[1] < groups[0] - 1e-3).any()
    start = coding.uniform(generator())
    own = (start - before).unflatten(1, (-1, 4)).square().sum(-1)
    for book in range(2):
        for value in range(16):
            other = layer.codes.clone()
            other[..., book] = value
            theirs = start - decode(other, layer.codebooks, layer.scales)
            assert (own <= theirs.unflatten(1, (-1, 4)).square().sum(-1) + 1e-5).all()


def test_a_cell_of_codewords_by_hand():
    """Codewords 0 and 4 on a line, with 100 off it: from 0 the cell reaches 2 along the line, either way."""
    books = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [0.0, 100.0]]])
    layer = AdditiveLinear("a", torch.zeros(1, 1, 1, dtype=torch.uint8), books, torch.ones(1))
    coding = OnCodebooks(layer)
    own, along = torch.zeros(2, 1, dtype=torch.uint8), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert coding._reach(own, along).flatten().tolist() == [2.0, 2.0]
    assert coding._reach(own[:1], torch.tensor([[0.6, 0.8]])).item() == pytest.approx(2 / 0.6)


def test_the_width_of_an_even_codebook_is_its_step():
    """One codebook of the numbers 0 … 15 for groups of one is a uniform grid of step 1, times the scale."""
    books, codes = torch.arange(16.0).view(1, 16, 1), torch.randint(16, (2, 4000, 1), generator=generator())
    layer = AdditiveLinear("a", codes.to(torch.uint8), books, torch.tensor([1.0, 3.0]))
    assert OnCodebooks(layer).width().flatten().tolist() == pytest.approx([1.0, 3.0], rel=0.03)


def test_outlier_columns_have_no_code_and_never_move():
    layer = outliers()
    coding = OnColumns(layer)
    scores = torch.arange(16.0).repeat(8, 1)
    assert coding.coded(scores)[0].tolist() == [0, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 14]
    moved = coding.whole(coding.centre() + 1)
    assert torch.equal(moved[:, [1, 4, 9, 15]], layer.kept.float())
    position = (coding.centre()).requires_grad_(True)
    coding.whole(position).sum().backward()
    assert torch.equal(position.grad, torch.ones(8, 12))


def test_a_group_moves_as_a_whole_by_its_mean_score():
    layer = additive(out=1, width=8)
    rounding = OnCodes(layer)
    scores = torch.tensor([[9.0, 0, 0, 0, 3, 3, 3, 3]])
    assert rounding.coded(scores).tolist() == [[2.25, 3.0]]
    assert rounding.spread(torch.tensor([[False, True]])).tolist() == [[False] * 4 + [True] * 4]


# --- rounding at export alone ---


def test_a_dense_twin_begins_as_the_quantized_layer_and_is_exported_right_on_average():
    layer = on_grid(64, 256)
    twin = DenseTwin(layer)
    position = Free(twin.start(generator()))
    touched = torch.ones(64, 256, dtype=torch.bool)
    torch.testing.assert_close(twin.weight(position(), touched), layer.weight())
    assert torch.equal(twin.exported(position, touched).codes, layer.codes)
    inside = (layer.codes > 0) & (layer.codes < 15)
    width = OnGrid(layer).width()
    position.latent.data += 0.3 * width
    torch.testing.assert_close(twin.weight(position(), touched), layer.weight() + 0.3 * width)
    shift = (twin.exported(position, touched).weight() - layer.weight()) / width
    assert shift[inside].mean().item() == pytest.approx(0.3, abs=0.02)
    assert set(shift[inside].round().unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("params", "low", "high"), [({}, 0, 1e-7), ({"rounded": "at_export"}, 0.01, 0.4)])
def test_writing_costs_nothing_but_where_codes_are_made_at_the_end(params, low, high):
    made = trainer(grid_of, **params)
    made.run()
    error = export_error(made.layers, {name: layer.exported() for name, layer in made.layers.items()})
    assert low <= error <= high


# --- a summand beside the codes ---


def test_a_summand_by_hand():
    grid = AffineGrid(2, 2, torch.tensor([[1.0]]))
    layer = QuantizedLinear("q", torch.tensor([[3, 0]], dtype=torch.uint8), grid)  # weights 1 and −2
    position = Free(torch.tensor([[1.75, -2.25]]))
    made = Beside(layer).exported(position, torch.tensor([[True, False]]))
    assert isinstance(made, DeltaLinear)
    assert made.weight()[0, 1] == -2.0, "what no mask has held does not move"
    assert made.weight()[0, 0].item() == pytest.approx(1 + 0.75 * 2 / 3, abs=1e-3)  # span 1.5, three steps: 0.5
    assert made.code_bits == 2 * 2 + 1 * 2 and torch.equal(made.codes, layer.codes)


def model_of(kind) -> tuple[nn.Module, dict]:
    """A random model, and a quantized layer of each of its linear ones."""
    model = tiny()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    return model, {name: replace(kind(model.get_submodule(name)), name=name) for name in names}


def additive_of(module: nn.Linear) -> AdditiveLinear:
    out, width = module.weight.shape
    layer = additive(out, width, books=2, bits=4, group=4)
    return replace(layer, scales=layer.scales * 0.02)


def outliers_of(module: nn.Linear) -> OutlierLinear:
    weight, columns = module.weight.detach(), torch.tensor([0, 5], dtype=torch.int32)
    rest = [i for i in range(weight.shape[1]) if i not in (0, 5)]
    grid = affine_grid(weight[:, rest], 4, -1, symmetric=True)
    return OutlierLinear("o", grid.nearest(weight[:, rest]), grid, columns, weight[:, [0, 5]].half(), 4)


def grid_of(module: nn.Linear) -> QuantizedLinear:
    grid = affine_grid(module.weight, 4, 8)
    return QuantizedLinear("g", grid.nearest(module.weight), grid)


def trainer(kind, score=snip_once, **params) -> Trainer:
    settings = Settings.read({"steps": 12, "lr": 0.3, "refresh_every": 4, "tau": 0.2} | params)
    model, layers = model_of(kind)
    return Trainer(model, attach(model, layers, settings), PAIRS, settings, score, seed=0)


@pytest.mark.parametrize("kind", [additive_of, outliers_of])
@pytest.mark.parametrize("params", [{}, {"rounded": "at_export"}, {"rank": 2, "lr_unit": "weight", "lr": 0.05}])
def test_codes_outside_the_masks_stay_and_training_prefers_the_winners(kind, params):
    made = trainer(kind, steps=30, beta=1.0, batch_size=6, **params)
    made.run()
    assert made.losses[-1] < 0.9 * made.losses[0] and changed(made) > 0
    for layer in made.layers.values():
        group = getattr(layer.rounding.coding, "group", 1)
        held = layer.touched.unflatten(1, (-1, group)).any(-1)
        assert (layer.exported().codes == layer.quantized.codes)[~held].all()
        assert torch.equal(layer.touched.unflatten(1, (-1, group)).all(-1), held)
        assert 0.1 < held.float().mean() < 0.75


@pytest.mark.parametrize("kind", [additive_of, outliers_of])
def test_nothing_moves_at_tau_zero_whatever_the_layer(kind):
    made = trainer(kind, tau=0.0, lr=1.0)
    made.run()
    assert changed(made) == 0 and not any(layer.touched.any() for layer in made.layers.values())


@pytest.mark.parametrize("kind", [grid_of, outliers_of])
def test_a_summand_leaves_every_code_and_moves_in_the_masks_alone(kind):
    made = trainer(kind, quant_mode="delta_quant", start="centre", beta=1.0)
    made.run()
    before = {name: layer.quantized for name, layer in made.layers.items()}
    after = {name: layer.exported() for name, layer in made.layers.items()}
    assert changes(before, after) == {"codes_changed": 0.0}
    for name, layer in made.layers.items():
        assert torch.equal(after[name].weight(), layer.quantized_weight()), "what was trained is exported"
        moved = after[name].weight() != before[name].weight()
        assert moved.any() and not moved[~layer.touched].any()
        assert after[name].code_bits == before[name].code_bits + 4 * int(layer.touched.sum())


@pytest.mark.parametrize("mode", ["requant_grid", "requant_fp", "delta_quant"])
def test_the_reference_is_the_quantized_model_in_every_mode(mode):
    made = trainer(grid_of, score=everything, quant_mode=mode, start="centre", steps=1)
    other = trainer(grid_of, score=everything, start="centre", steps=1)
    made.run(), other.run()
    for i in made.reference:
        torch.testing.assert_close(made.reference[i], other.reference[i])
