"""Low-rank updates, the masks on their factors, and the ways their sum is rounded."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_patch_training import PAIRS, everything, quantize, snip_once, tiny
from torch import nn

from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.check import logit_error
from bitsafe.artefacts.grids import AffineGrid, TableGrid, affine_grid
from bitsafe.artefacts.layers import LowRank, QuantizedLinear, moved
from bitsafe.artefacts.load import load_dense
from bitsafe.patches.base import Settings
from bitsafe.patches.shared.export import export, unmasked_changes
from bitsafe.patches.shared.maths import critical_mask, dpo_loss, map_mask
from bitsafe.patches.training.latent import LatentLinear, attach
from bitsafe.patches.training.position import Factored, Free
from bitsafe.patches.training.rounding import OnNewGrid, refitted
from bitsafe.patches.training.sequences import answer_logprobs
from bitsafe.patches.training.trainer import Trainer, draw
from bitsafe.quantizers import aqlm, llm_int8, nf4, qlora, quik, rtn
from bitsafe.quantizers.base import QuantizeJob

ROUNDED = ("requant_grid", "requant_fp", "delta_quant", "adapter", "unexported")
LOW_RANK = {"rank": 2, "alpha": 4, "lr_unit": "weight", "start": "centre", "optimizer": "adamw", "lr": 0.01}


def trained(score, **params) -> Trainer:
    model, settings = tiny(), Settings.read(LOW_RANK | params)
    trainer = Trainer(model, attach(model, quantize(model), settings), PAIRS, settings, score, seed=0)
    trainer.run()
    return trainer


# --- MapMask ---


def test_masks_on_factors_by_hand():
    """Means of the rows 2, 4/3, 1/3, of the columns 4/3, 2/3, 5/3: with τ = 1/3 one of each."""
    scores = {"a": torch.tensor([[4.0, 0, 2], [0, 1, 3], [0, 1, 0]])}
    mask = map_mask(scores, 1 / 3, mode="rowcol_mean")["a"]
    assert mask.outputs.tolist() == [True, False, False] and mask.inputs.tolist() == [False, False, True]
    assert mask.weights.nonzero().tolist() == [[0, 2]]
    mask = map_mask(scores, 2 / 9, mode="any")["a"]  # the entries 4 and 3, in rows 0 and 1, columns 0 and 2
    assert mask.outputs.tolist() == [True, True, False] and mask.inputs.tolist() == [True, False, True]
    assert mask.weights.sum() == 4
    assert torch.equal(map_mask(scores, 2 / 9)["a"].weights, critical_mask(scores, 2 / 9)["a"])


def test_any_is_no_mask_at_the_papers_share():
    scores = {"a": torch.rand(64, 64, generator=torch.Generator().manual_seed(0))}
    assert map_mask(scores, 0.6, mode="any")["a"].weights.all()


# --- low rank ---


def test_a_low_rank_update_starts_at_nothing():
    model = tiny()
    layers = attach(model, quantize(model), Settings.read(LOW_RANK))
    for layer in layers.values():
        assert torch.equal(layer.position(), layer.quantized.weight())
        assert isinstance(layer.position, Factored) and layer.position.A.abs().sum() > 0


def naive_dpo(rank: int, alpha: float, steps: int, settings: Settings) -> dict[str, torch.Tensor]:
    """Plain DPO-LoRA with torch's own AdamW on the same pairs, codes rounded in every forward pass."""
    model = tiny()
    quantized, ours = quantize(model), attach(tiny(), quantize(tiny()), settings)
    factors = {name: (x.position.A.detach().clone(), x.position.B.detach().clone()) for name, x in ours.items()}
    factors = {name: [nn.Parameter(part) for part in parts] for name, parts in factors.items()}
    model.requires_grad_(False)
    for name, layer in quantized.items():
        module = model.get_submodule(name)

        def forward(x, layer=layer, parts=factors[name]):
            moved = layer.weight() + alpha / rank * parts[1] @ parts[0]
            rounded = layer.grid.dequantize(layer.grid.nearest(moved))
            return F.linear(x, moved + (rounded - moved).detach())

        module.forward = forward
    optimizer = torch.optim.AdamW([p for parts in factors.values() for p in parts], lr=settings.lr, weight_decay=0.0)
    with torch.no_grad():
        reference = [[answer_logprobs(model, [s])[0] for s in (pair.winner, pair.loser)] for pair in PAIRS]
    for batch in draw(len(PAIRS), settings.batch_size, steps, 0):
        losses = []
        for i in batch:
            winner, loser = (answer_logprobs(model, [s])[0] for s in (PAIRS[i].winner, PAIRS[i].loser))
            losses.append(dpo_loss(winner, loser, *reference[i], settings.beta))
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    moved = {name: alpha / rank * (b @ a).detach() for name, (a, b) in factors.items()}
    return {name: layer.weight() + moved[name] for name, layer in quantized.items()}


def test_the_whole_product_is_plain_dpo_with_an_adapter():
    """τ = 1 with the mask on the product equals an independent DPO-LoRA loop to rounding."""
    trainer = trained(snip_once, tau=1.0, steps=6)
    naive = naive_dpo(2, 4, 6, trainer.settings)
    for name, layer in trainer.layers.items():
        torch.testing.assert_close(layer.position().detach(), naive[name], rtol=1e-3, atol=1e-5)
        assert (layer.position() != layer.quantized.weight()).any()


@pytest.mark.parametrize("mode", ["product", "rowcol_mean", "any"])
@pytest.mark.parametrize("rank", [0, 2])
def test_codes_outside_all_masks_stay(mode, rank):
    unit = {"lr_unit": "weight", "lr": 0.02}
    trainer = trained(snip_once, mask_mode=mode, rank=rank, tau=0.1, steps=9, refresh_every=3, **unit)
    moved = 0
    for layer in trainer.layers.values():
        same = layer.exported().codes == layer.quantized.codes
        assert same[~layer.touched].all()
        assert torch.equal(layer.position()[~layer.touched], layer.quantized.weight()[~layer.touched])
        moved += int((~same).sum())
    assert moved > 0
    held = sum(int(layer.touched.sum()) for layer in trainer.layers.values())
    assert 0 < held < sum(layer.touched.numel() for layer in trainer.layers.values()) or mode == "any"


def test_what_leaves_a_mask_on_the_product_falls_back():
    trainer = trained(snip_once, tau=0.1, steps=9, refresh_every=3)
    for layer in trainer.layers.values():
        left = layer.touched & ~layer.position.product
        assert torch.equal(layer.position()[left], layer.quantized.weight()[left])


def test_nothing_moves_at_tau_zero():
    for mode in ("product", "rowcol_mean", "any"):
        trainer = trained(snip_once, mask_mode=mode, tau=0.0, steps=3)
        for layer in trainer.layers.values():
            assert not layer.touched.any() and torch.equal(layer.exported().codes, layer.quantized.codes)


# --- other roundings ---


def test_a_refitted_grid_is_the_min_max_grid():
    torch.manual_seed(0)
    weight = torch.randn(4, 16)
    for symmetric in (True, False):
        old = affine_grid(torch.randn(4, 16), 4, 8, symmetric)
        new, wanted = refitted(old, weight), affine_grid(weight, 4, 8, symmetric)
        assert torch.equal(new.scale, wanted.scale) and (new.group_size, new.bits, new.symmetric) == (8, 4, symmetric)
    table = refitted(TableGrid(torch.tensor([-1.0, 0.0, 1.0]), torch.ones(8), 8, (4, 16)), weight)
    assert torch.equal(table.absmax, weight.view(8, 8).abs().amax(1))


def test_requantizing_changes_scales_and_codes_outside_the_masks():
    trainer = trained(snip_once, quant_mode="requant_fp", tau=0.1, steps=6, lr=0.05)
    layers = trainer.layers.values()
    assert any((layer.exported().grid.scale != layer.quantized.grid.scale).any() for layer in layers)
    for layer in layers:
        assert torch.equal(layer.exported().weight(), layer.quantized_weight()), "what was trained is exported"


def test_what_requantizing_changes_outside_the_masks_is_told():
    """By hand: of three free weights one code changed, and one weight went from 2 to 3 while 1 and 0 stayed."""
    own = QuantizedLinear("q", torch.tensor([[3, 2, 1, 0]], dtype=torch.uint8), AffineGrid(2, 4, torch.tensor([[1.0]])))
    layer = LatentLinear(own, None, Free(own.weight()), OnNewGrid(own))  # weights 1, 0, −1, −2
    layer.touched[0, 0] = True
    codes = torch.tensor([[0, 2, 1, 1]], dtype=torch.uint8)
    told = unmasked_changes({"q": layer}, {"q": replace(own, codes=codes)})
    assert told == {"unmasked_codes_changed": 1 / 3, "unmasked_change": pytest.approx((1 / 5) ** 0.5)}
    trainer = trained(snip_once, quant_mode="requant_fp", tau=0.1, steps=6, lr=0.05)
    made = {name: layer.exported() for name, layer in trainer.layers.items()}
    assert 0 < unmasked_changes(trainer.layers, made)["unmasked_change"] < 1
    trainer = trained(snip_once, tau=0.1, steps=6, lr=0.05)
    made = {name: layer.exported() for name, layer in trainer.layers.items()}
    assert unmasked_changes(trainer.layers, made) == {"unmasked_codes_changed": 0, "unmasked_change": 0}


def test_requantizing_what_has_not_moved_changes_little():
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    grid = affine_grid(weight, 4, 32)
    layer = QuantizedLinear("a", grid.nearest(weight), grid)
    again = OnNewGrid(layer).exported(Free(layer.weight()), torch.zeros(16, 64, dtype=torch.bool))
    torch.testing.assert_close(again.weight(), layer.weight(), rtol=0, atol=2e-3)


def test_an_adapter_leaves_every_code_and_computes_with_the_update():
    trainer = trained(everything, quant_mode="adapter", tau=1.0, steps=6)
    for layer in trainer.layers.values():
        exported = layer.exported()
        assert torch.equal(exported.codes, layer.quantized.codes)
        torch.testing.assert_close(exported.dense(), layer.quantized_weight(), rtol=1e-3, atol=1e-4)
        assert (exported.dense() != layer.quantized.dense()).any()


# --- written and read again ---


@pytest.fixture(scope="module")
def cells(tmp_path_factory, tiny_llama, conversations):
    """A cell of each kind of grid, and one with an adapter."""
    root = tmp_path_factory.mktemp("cells")
    learning = (qlora, aqlm, quik)
    for name, (module, bits, params) in {
        "rtn": (rtn, 4, {"group_size": 32}),
        "nf4": (nf4, 4, {}),
        "llm_int8": (llm_int8, 8, {}),
        "qlora": (qlora, 4, {"rank": 4, "alpha": 8, "steps": 2, "lr": 1e-2, "batch_size": 8}),
        "nf3": (qlora, 3, {"rank": 4, "alpha": 8, "steps": 2, "lr": 1e-2, "batch_size": 8}),
        "aqlm": (
            aqlm,
            2,
            {"layout": "2x4g4", "samples": 8, "finetune_steps": 1, "max_rounds": 1, "steps": 0, "lr": 0.0},
        ),
        "quik": (quik, 4, {"samples": 8, "activations": False}),
    }.items():
        (root / name).mkdir()
        module.quantize(QuantizeJob(tiny_llama, root / name, bits, params, conversations if module in learning else []))
    return root


COMBINATIONS = [(mode, method) for mode in ROUNDED for method in ("rtn", "nf4", "llm_int8", "qlora", "nf3")]
COMBINATIONS += [("requant_grid", "aqlm"), ("adapter", "aqlm"), ("unexported", "aqlm")]
COMBINATIONS += [(mode, "quik") for mode in ("requant_grid", "delta_quant", "adapter", "unexported")]


@pytest.mark.parametrize(("mode", "method"), COMBINATIONS)
def test_what_is_exported_is_what_was_trained(cells, method, mode, tmp_path):
    model, _ = load_dense(cells / method, "float32")
    how = {"exported": False} if mode == "unexported" else {"quant_mode": mode}
    settings = Settings.read(LOW_RANK | how | {"tau": 1.0})
    before = read_layers(cells / method)
    layers = attach(model, before, settings)
    torch.manual_seed(0)
    for layer in layers.values():
        layer.hold(None)
        layer.position.B.data.normal_(std=0.2)
    made = {name: x.exported() if settings.exported else x.unexported() for name, x in layers.items()}
    export(cells / method, tmp_path / "out", made, settings.quant_mode)
    ids = torch.arange(5, 40)[None]
    with torch.no_grad():
        ours, theirs = model(ids).logits, load_dense(tmp_path / "out", "float32")[0](ids).logits
    # an adapter is stored in 16 bits, and LLM.int8 rounds activations, which makes much of little
    rounded = {"adapter": 2e-3, "llm_int8": 3e-2}
    assert logit_error([theirs], [ours]) < max(rounded.get(mode, 1e-5), rounded.get(method, 0))
    assert logit_error([theirs], [load_dense(cells / method, "float32")[0](ids).logits.detach()]) > 1e-3
    after = read_layers(tmp_path / "out")
    assert all(layer.bits == before[name].bits and layer.fault() is None for name, layer in after.items())
    if mode != "unexported":
        same = all(torch.equal(after[name].codes, layer.codes) for name, layer in before.items())
        assert same == (mode in ("adapter", "delta_quant"))


def test_an_adapter_is_one_that_peft_reads(cells, tmp_path):
    from peft import PeftModel

    model, _ = load_dense(cells / "rtn", "float32")
    layers = attach(model, read_layers(cells / "rtn"), Settings.read(LOW_RANK | {"quant_mode": "adapter", "tau": 1.0}))
    for layer in layers.values():
        layer.position.B.data.normal_(std=0.2)
    export(cells / "rtn", tmp_path / "out", {name: x.exported() for name, x in layers.items()}, "adapter")
    ids = torch.arange(5, 40)[None]
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(load_dense(cells / "rtn", "float32")[0], tmp_path / "out/adapter")(
            ids
        ).logits
        ours = load_dense(tmp_path / "out", "float32")[0](ids).logits
    assert logit_error([theirs], [ours]) < 1e-5


def test_a_layer_moves_with_all_its_tensors():
    """On another device: `meta` stands for a GPU."""
    weight = torch.randn(4, 16)
    grid = affine_grid(weight, 4, 8)
    layer = QuantizedLinear("a", grid.nearest(weight), grid, adapter=LowRank(torch.ones(2, 16), torch.ones(4, 2), 1.0))
    found = moved(layer, "meta")
    tensors = [found.codes, found.grid.scale, found.grid.zero_point, found.adapter.A, found.adapter.B]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (found.name, found.bits, found.adapter.scaling) == ("a", 4, 1.0)
    assert moved(found.grid.shape, "meta") == (4, 16)
