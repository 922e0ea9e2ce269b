"""Q-realign: the separators, the loss, what moves of a block, and the patch from cell to cell."""

import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.load import load_dense, load_tokenizer
from bitsafe.errors import CellError, UserError
from bitsafe.files import read_jsonl
from bitsafe.matrix.tables import Tables
from bitsafe.patches import q_realign
from bitsafe.patches.base import PatchJob
from bitsafe.patches.realigning.blocks import Aim, realign
from bitsafe.patches.realigning.maths import Separator, class_weights, fit_separator, realign_loss
from bitsafe.patches.realigning.prompts import batches
from bitsafe.patches.realigning.separators import last_tokens, mean_logits
from bitsafe.patches.realigning.settings import RealignSettings
from bitsafe.quantizers import aqlm, full, nf4, qlora, quik, quip_sharp, rtn
from bitsafe.quantizers.base import QuantizeJob

PROMPTS = [
    {
        "id": f"p{i}",
        "messages": [{"role": "user", "content": f"How do I open {'gate' if i % 2 else 'the old lamp'} {i}?"}],
    }
    for i in range(8)
]
ROWS = [row | {"refused": i % 2 == 1} for i, row in enumerate(PROMPTS)]


# --- the maths ---


def test_a_separator_by_hand():
    """Of x = ±1 with b = 0 by symmetry: 2 / (1 + exp(w)) = λ, so w = log(2/λ − 1); at λ = 2 the line is gone."""
    x, refused = torch.tensor([[1.0], [-1.0]]), torch.tensor([True, False])
    found = fit_separator(x, refused, l1=0.5)
    assert found.weight.item() == pytest.approx(math.log(3), abs=1e-5)
    assert found.bias.item() == pytest.approx(0, abs=1e-5)
    assert found.accuracy(x, refused) == 1.0 and found.accuracy(x, ~refused) == 0.0
    assert fit_separator(x, refused, l1=2.0).weight.item() == 0


@pytest.mark.parametrize("massive", [0, 200, 1000])
def test_a_separator_is_the_minimum_of_its_objective(massive):
    """A weight of zero has |slope| ≤ λ, any other −λ sign(w); the bias, which bears no penalty, has none.

    So also where one activation is far larger than the others, as in large models, and tells nothing.
    """
    x = torch.randn(40, 12, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.2, 3, 12)
    x[:, 5] += massive
    refused = x[:, 3] + 0.5 * x[:, 9] + torch.randn(40, generator=torch.Generator().manual_seed(1)) > 0.4
    found = fit_separator(x, refused, l1=1.5)
    w, b = found.weight.double().requires_grad_(), found.bias.double().requires_grad_()
    y = torch.where(refused, 1.0, -1.0).double()
    F.softplus(-y * (x.double() @ w + b)).sum().backward()
    nought = w == 0
    assert 0 < nought.sum() < 12
    size = x.double().abs().amax(0).clamp(min=1)  # a large column multiplies what float32 does to its weight
    assert (w.grad.abs() <= 1.5 + 1e-4 * size)[nought].all() and b.grad.abs() < 1e-4
    slope = (w.grad + 1.5 * w.sign()) / size
    torch.testing.assert_close(slope[~nought], torch.zeros_like(slope)[~nought], atol=1e-4, rtol=0)


def test_the_loss_by_hand():
    """Refused: logit 2·1 − 1 = 1 at the last token. Answered: four entries off by 1, 0, 0, 1, so 1/2."""
    hidden = torch.tensor([[[9.0, 9.0], [1.0, 7.0]], [[1.0, 0.0], [0.0, 1.0]]])
    separator = Separator(torch.tensor([2.0, 0.0]), torch.tensor(-1.0))
    parts = hidden, torch.zeros(2, 2, 2), torch.tensor([True, False]), torch.tensor([3.0, 1.0])
    safety = math.log(1 + math.exp(-1))
    assert realign_loss(*parts, separator).item() == pytest.approx((3 * safety + 0.5) / 2)
    assert realign_loss(*parts, None).item() == pytest.approx((3 * (81 + 81 + 1 + 49) / 4 + 0.5) / 2)


def test_weights_by_hand():
    refused = torch.tensor([True, False, False, False])
    assert class_weights(refused, 0.75).tolist() == pytest.approx([3, 1 / 3, 1 / 3, 1 / 3])
    assert class_weights(refused, 0.0).tolist() == pytest.approx([0, 4 / 3, 4 / 3, 4 / 3])


def test_batches_hold_prompts_of_one_length(tiny_llama):
    made = batches(load_tokenizer(tiny_llama), ROWS, RealignSettings(batch_size=3))
    assert sorted(len(batch.ids) for batch in made) == [1, 1, 3, 3]
    assert all(len(set(batch.refused.tolist())) == 1 for batch in made)  # the two kinds differ in length here
    assert sum(float(batch.weights.sum()) for batch in made) == pytest.approx(8)


# --- one block after the other ---


def separators(model, made) -> list[Separator]:
    """Lines that the refused prompts are on the wrong side of, so that there is something to repair."""
    refused = torch.cat([batch.refused for batch in made])
    found = [fit_separator(seen, refused, 0.1) for seen in last_tokens(model, made)]
    return [Separator(-line.weight, -line.bias) for line in found]


def cell(tiny_llama, folder, module=rtn, bits=4, conversations=(), **params):
    folder.mkdir(parents=True)
    module.quantize(QuantizeJob(tiny_llama, folder, bits, params, list(conversations), 3))
    return folder


def naive(model, layers, made, lines, settings, rate, start) -> nn.Module:
    """The same walk with torch's own AdamW, whole forward passes and hooks; A and B start as in `start`."""
    outputs, half = {}, len(model.model.layers) // 2
    for i, block in enumerate(model.model.layers):
        block.register_forward_hook(
            lambda _m, _x, out, i=i: outputs.__setitem__(i, out[0] if isinstance(out, tuple) else out)
        )
    said = []
    with torch.no_grad():
        for batch in made:
            model(batch.ids)
            said.append(dict(outputs))
    for i, block in enumerate(model.model.layers):
        mine = {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear)}
        factors, frozen = {}, {n: m.weight.detach().clone() for n, m in mine.items()}
        for n, m in mine.items():
            a, b = (part.clone().requires_grad_() for part in start[f"model.layers.{i}.{n}"])
            factors[n] = (a, b)
            m.forward = lambda x, w=frozen[n], a=a, b=b: F.linear(x, w + settings.alpha / settings.rank * b @ a)
        optimizer = torch.optim.AdamW([p for pair in factors.values() for p in pair], lr=rate, weight_decay=0)
        order = random.Random(f"0 {i}")
        for _ in range(settings.epochs_low if i <= half else settings.epochs_high):
            for k in order.sample(range(len(made)), len(made)):
                model(made[k].ids)
                logits = outputs[i][:, -1] @ lines[i].weight + lines[i].bias
                kept = ((outputs[i] - said[k][i]) ** 2).mean((1, 2))
                each = torch.where(made[k].refused, (1 + (-logits).exp()).log(), kept)
                optimizer.zero_grad()
                (made[k].weights * each).mean().backward()
                optimizer.step()
        for n, m in mine.items():
            a, b = (part.detach().half().float() for part in factors[n])  # as an adapter is stored
            m.forward = lambda x, w=frozen[n], a=a, b=b: F.linear(x, w + settings.alpha / settings.rank * b @ a)
    return model


def test_a_naive_reference_gives_the_same_model(tiny_llama, tmp_path, monkeypatch):
    from bitsafe.patches.realigning import moving

    artefact = cell(tiny_llama, tmp_path / "cell", group_size=32)
    layers = read_layers(artefact)
    settings = RealignSettings(quant_mode="adapter", rank=2, alpha=4, epochs_low=2, epochs_high=3, batch_size=3)
    ours, tokenizer = load_dense(artefact, "float32")
    made = batches(tokenizer, ROWS, settings)
    lines, starts = separators(ours, made), {}
    build = moving.Moving

    def noted(layer, *rest):
        part = build(layer, *rest)
        starts[layer.name] = (part.position.A.detach().clone(), part.position.B.detach().clone())
        return part

    monkeypatch.setattr(moving, "Moving", noted)
    realign(ours, layers, made, Aim(lines), settings, 0.01, 0)
    theirs = naive(load_dense(artefact, "float32")[0], layers, made, lines, settings, 0.01, starts)
    untouched = load_dense(artefact, "float32")[0]
    with torch.no_grad():
        for batch in made:
            torch.testing.assert_close(ours(batch.ids).logits, theirs(batch.ids).logits, atol=2e-3, rtol=1e-3)
            assert (ours(batch.ids).logits - untouched(batch.ids).logits).abs().max() > 0.1


@pytest.mark.parametrize("mode", ["requant_grid", "adapter"])
def test_refused_prompts_cross_the_line_and_answered_ones_stay(mode, tiny_llama, tmp_path):
    artefact = cell(tiny_llama, tmp_path / "cell", group_size=32)
    settings = RealignSettings(quant_mode=mode, epochs_low=10, epochs_high=10)
    model, tokenizer = load_dense(artefact, "float32")
    made = batches(tokenizer, ROWS, settings)
    lines, refused = separators(model, made), torch.cat([batch.refused for batch in made])
    before = last_tokens(model, made)
    rate = {"requant_grid": 0.05, "adapter": 0.003}[mode]
    _, facts = realign(model, read_layers(artefact), made, Aim(lines), settings, rate, 0)
    after = last_tokens(model, made)
    assert max(mean_logits(lines, before, refused)) < 0 < min(mean_logits(lines, after, refused))
    moved = [(now - was).norm(dim=1) for now, was in zip(after, before, strict=True)]
    assert all(distance[refused].mean() > 2 * distance[~refused].mean() for distance in moved)
    assert all(last < first for first, last in zip(facts["first_losses"], facts["last_losses"], strict=True))


def test_a_teacher_is_approached_on_refused_prompts(tiny_llama, tmp_path):
    artefact = cell(tiny_llama, tmp_path / "cell", bits=2, group_size=32)
    settings = RealignSettings(quant_mode="adapter", epochs_low=10, epochs_high=10)
    (model, tokenizer), (teacher, _) = load_dense(artefact, "float32"), load_dense(tiny_llama, "float32")
    made = batches(tokenizer, ROWS, settings)
    refused = torch.cat([batch.refused for batch in made])
    before, goal = last_tokens(model, made), last_tokens(teacher, made)
    realign(model, read_layers(artefact), made, Aim([], teacher), settings, 0.003, 0)
    for was, now, wanted in zip(before, last_tokens(model, made), goal, strict=True):
        assert (now - wanted)[refused].norm() < 0.5 * (was - wanted)[refused].norm()
        assert (now - was)[~refused].norm() < 0.5 * (was - wanted)[~refused].norm()


def test_a_loss_that_is_not_finite_stops_the_cell(tiny_llama, tmp_path):
    artefact = cell(tiny_llama, tmp_path / "cell", group_size=32)
    model, tokenizer = load_dense(artefact, "float32")
    made = batches(tokenizer, ROWS, RealignSettings())
    lines = [Separator(torch.full((128,), math.nan), torch.tensor(0.0))] * 2
    with pytest.raises(CellError, match=r"model\.layers\.0, pass 1 \(lr 0\.01\)"):
        realign(model, read_layers(artefact), made, Aim(lines), RealignSettings(), 0.01, 0)


# --- the patch ---


def job(tiny_llama, artefact, folder, refuses=lambda call, i: i % 2 == 1, **params) -> PatchJob:
    """Full precision refuses every other prompt; call > 1: the patched model, asked for validation."""
    (folder / "artefact").mkdir(parents=True)
    calls = []

    def generate(model, tokenizer, prompts, max_new_tokens):
        calls.append(model)
        return ["Sorry, I cannot help." if refuses(len(calls), int(row["id"][1:])) else "Lift it." for row in prompts]

    params = {"validation": 2, "epochs_low": 2, "epochs_high": 2, "lr": 0.05} | params
    return PatchJob(artefact, tiny_llama, folder / "artefact", PROMPTS, params, 0, "float32", generate)


def logits(folder):
    with torch.no_grad():
        return load_dense(folder, "float32")[0](torch.arange(5, 60)[None]).logits


@pytest.mark.parametrize("target", ["separator", "full_precision"])
def test_codes_move_and_nothing_else(target, tiny_llama, tmp_path):
    artefact = cell(tiny_llama, tmp_path / "cell", group_size=32)
    work = job(tiny_llama, artefact, tmp_path / "patched", refused_target=target)
    facts = q_realign.patch(work)
    before, after = read_layers(artefact), read_layers(work.out)
    moved = sum(int((after[name].codes != before[name].codes).sum()) for name in before)
    assert facts["codes_changed"] == moved / sum(layer.numel for layer in before.values()) > 0
    assert all(torch.equal(after[name].grid.scale, before[name].grid.scale) for name in before)
    assert sorted(p.name for p in work.out.iterdir()) == sorted(p.name for p in artefact.iterdir())
    assert facts["prompts"] == 8 and facts["validation"] == 2 and 0 < facts["refused"] < 6
    rows = read_jsonl(tmp_path / "patched" / facts["labelled_file"])
    assert [row["refused"] for row in rows] == [i % 2 == 1 for i in range(8)]


def test_with_nothing_to_bring_back_every_byte_stays(tiny_llama, tmp_path):
    """Answered prompts alone are where they were: their loss is zero, and no step is taken."""
    artefact = cell(tiny_llama, tmp_path / "cell", group_size=32)
    work = job(tiny_llama, artefact, tmp_path / "patched", refused_share=0.0)
    facts = q_realign.patch(work)
    assert facts["codes_changed"] == 0 and facts["last_losses"] == [0, 0]
    for file in artefact.iterdir():
        assert (work.out / file.name).read_bytes() == file.read_bytes()


KINDS = {
    "rtn": (rtn, 4, {"group_size": 32}),
    "nf4": (nf4, 4, {}),
    "qlora": (qlora, 4, {"rank": 4, "alpha": 8, "steps": 2, "lr": 1e-2, "batch_size": 8}),
    "quik": (quik, 4, {}),
    "quip_sharp": (quip_sharp, 2, {}),
    "aqlm": (aqlm, 2, {"finetune_steps": 0, "steps": 0, "lr": 0.001}),
}


@pytest.mark.parametrize("mode", ["requant_grid", "adapter"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_what_was_realigned(kind, mode, tiny_llama, tmp_path, conversations, monkeypatch):
    """Codes or an adapter, of every kind of layer, give the logits of the model as the last block left it."""
    module, bits, params = KINDS[kind]
    artefact = cell(tiny_llama, tmp_path / "cell", module, bits, conversations, **params)
    work = job(tiny_llama, artefact, tmp_path / "patched", quant_mode=mode)
    if mode == "requant_grid" and kind == "quip_sharp":
        with pytest.raises(UserError, match="quant_mode: adapter"):
            q_realign.patch(work)
        return
    models = []

    def kept(model, *rest):
        models.append(model)
        return realign(model, *rest)

    monkeypatch.setattr(q_realign, "realign", kept)
    facts = q_realign.patch(work)
    with torch.no_grad():
        in_memory = models[0](torch.arange(5, 60)[None]).logits
    torch.testing.assert_close(logits(work.out), in_memory, atol=1e-4, rtol=1e-4)
    assert (in_memory - logits(artefact)).abs().max() > 1e-3
    layers = read_layers(work.out)
    own = 4 if kind == "qlora" else 0
    if mode == "adapter":
        assert facts["codes_changed"] == 0 and all(len(layer.adapter.A) == 8 + own for layer in layers.values())
    else:
        assert facts["codes_changed"] > 0 and all((layer.adapter is not None) == bool(own) for layer in layers.values())


def test_of_several_rates_the_one_that_agrees_is_kept(tiny_llama, tmp_path):
    artefact = cell(tiny_llama, tmp_path / "cell", group_size=32)
    agrees = lambda call, i: (i % 2 == 1) == (call in (1, 3))  # noqa: E731 the second rate is right, the others wrong
    work = job(tiny_llama, artefact, tmp_path / "many", agrees, lr=[0.2, 0.05, 0.1])
    facts = q_realign.patch(work)
    assert facts["lr"] == 0.1 and facts["rates_tried"] == {"0.05": 0.0, "0.1": 1.0, "0.2": 0.0}
    alone = job(tiny_llama, artefact, tmp_path / "one", lr=0.1)
    q_realign.patch(alone)
    one, many = read_layers(alone.out), read_layers(work.out)
    assert all(torch.equal(one[name].codes, many[name].codes) for name in one)


def test_both_kinds_of_prompts_are_needed(tiny_llama, tmp_path):
    artefact = cell(tiny_llama, tmp_path / "cell", group_size=32)
    for said, count in ((True, 6), (False, 0)):
        work = job(tiny_llama, artefact, tmp_path / str(count), lambda call, i, said=said: said)
        with pytest.raises(UserError, match=f"refused {count} of 6 prompts.*patch_set"):
            q_realign.patch(work)


def test_full_precision_has_nothing_to_move(tiny_llama, tmp_path):
    artefact = cell(tiny_llama, tmp_path / "cell", full, 16)
    with pytest.raises(UserError, match="full precision: leave it out"):
        q_realign.patch(job(tiny_llama, artefact, tmp_path / "patched"))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"refused_share": 1.5}, "refused_share: 1.5: a share"),
        ({"l1": -1}, "l1: -1"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"rank": 0}, "rank: 0"),
        ({"lr": []}, "at least one learning rate"),
        ({"lr": [0.1], "validation": 0}, "validation: 0: prompts are needed"),
        ({"quant_mode": "requant_fp"}, "not one of requant_grid, adapter"),
        ({"refused_targets": "separator"}, "did you mean 'refused_target'"),
    ],
)
def test_parameters_that_cannot_be(params, words):
    with pytest.raises(UserError, match=words):
        RealignSettings.read(params)


def test_every_row_can_be_read():
    rows = {name: row for name, row in Tables({}).rows("patches").items() if row.module == "bitsafe.patches.q_realign"}
    assert {"q_realign", "q_realign_adapter"} <= set(rows)
    for row in rows.values():
        RealignSettings.read(row.params)
