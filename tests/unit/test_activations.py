"""Activations rounded in the forward pass: the rules by hand, the hooks on a tiny Llama."""

import pytest
import torch

from bitsafe.artefacts.activations import (
    Activations,
    Rule,
    attach_rules,
    fake_quantize,
    read_activations,
    write_activations,
)
from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.load import load_dense, load_model
from bitsafe.generate.engine import complete
from bitsafe.patches.base import Settings
from bitsafe.patches.training.latent import attach
from bitsafe.quantizers import rtn
from bitsafe.quantizers.base import QuantizeJob

IDS = torch.arange(5, 60)[None]
SYMMETRIC, BETWEEN = Rule(4, symmetric=True), Rule(2, symmetric=False)


@pytest.fixture(scope="module")
def rounded(tmp_path_factory, tiny_llama):
    """An artefact whose activations are rounded to 4 bits, so coarsely that nobody can overlook it, and its cache."""
    out = tmp_path_factory.mktemp("rounded")
    rtn.quantize(QuantizeJob(tiny_llama, out, 4, {}))
    write_activations(out, Activations(Rule(4, True), {"down_proj": Rule(8, False)}, Rule(4, True)))
    return out


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def test_symmetric_by_hand():
    """4 bits: seven steps on either side of zero, the largest entry of each token at the last."""
    x = torch.tensor([[7.0, -3.4, 0.4, 0.0], [-14.0, 6.8, -1.2, 0.9]])
    assert fake_quantize(x, SYMMETRIC).tolist() == [[7, -3, 0, 0], [-14, 6, -2, 0]]


def test_asymmetric_by_hand():
    """2 bits: three steps from the smallest entry of each token to its largest; zero need not be a level."""
    x = torch.tensor([[-1.0, 0.2, 1.4, 2.0], [10.5, 11.4, 11.6, 13.5]])
    assert fake_quantize(x, BETWEEN).tolist() == [[-1, 0, 1, 2], [10.5, 11.5, 11.5, 13.5]]


def test_tokens_of_one_value():
    x = torch.tensor([[0.0, 0.0], [3.3, 3.3]])
    assert torch.equal(fake_quantize(x, SYMMETRIC), x)
    assert torch.equal(fake_quantize(x, BETWEEN), x)


def test_a_threshold_keeps_what_reaches_it_and_leaves_it_out_of_the_scale():
    x = torch.tensor([[6.0, -8.0, 1.27, 0.504], [-7.0, 9.0, 6.5, 6.0]])  # the second token: all above it
    found = fake_quantize(x, Rule(8, True, threshold=6.0))
    torch.testing.assert_close(found, torch.tensor([[6.0, -8.0, 1.27, 0.50], [-7.0, 9.0, 6.5, 6.0]]))
    assert found[0, :2].tolist() == [6, -8]
    low = fake_quantize(torch.tensor([[-1.0, 100.0, 0.2, 2.0]]), Rule(2, False, threshold=6.0))
    assert low.tolist() == [[-1, 100, 0, 2]]


def test_outlier_columns_stay_and_count_in_no_scale():
    x = torch.tensor([[100.0, -1.0, 0.2, 2.0], [0.001, 7.0, -3.4, 0.4]])
    assert fake_quantize(x, BETWEEN, torch.tensor([0])).tolist()[0] == [100, -1, 0, 2]
    found = fake_quantize(x, SYMMETRIC, torch.tensor([0]))[1]
    assert torch.equal(found, torch.tensor([0.001, 7.0, -3.0, 0.0]))
    assert torch.equal(fake_quantize(x, BETWEEN, torch.arange(4)), x)


@pytest.mark.parametrize("rule", [SYMMETRIC, BETWEEN, Rule(4, True, threshold=1.0)])
def test_the_gradient_is_the_identitys_and_training_sees_the_same_numbers(rule):
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
    leaf, weights = x.clone().requires_grad_(), torch.randn(3, 5, 16)
    found = fake_quantize(leaf, rule, torch.tensor([2]))
    (found * weights).sum().backward()
    assert torch.equal(leaf.grad, weights)
    assert torch.equal(found.detach(), fake_quantize(x, rule, torch.tensor([2])))


@pytest.mark.parametrize("rule", [SYMMETRIC, BETWEEN, Rule(8, True, threshold=1.0)])
def test_a_token_is_rounded_by_itself(rule):
    x = torch.randn(4, 7, 32, generator=torch.Generator().manual_seed(1))
    whole = fake_quantize(x, rule)
    assert all(torch.equal(fake_quantize(x[i, j], rule), whole[i, j]) for i in range(4) for j in range(7))


def test_the_dtype_stays():
    x = torch.randn(2, 8).to(torch.bfloat16)
    assert fake_quantize(x, SYMMETRIC).dtype == torch.bfloat16
    assert torch.equal(fake_quantize(x, SYMMETRIC), fake_quantize(x.float(), SYMMETRIC).to(torch.bfloat16))


def test_written_and_read(tmp_path):
    rules = Activations(Rule(4, False), {"down_proj": Rule(8, False, threshold=6.0)}, Rule(4, True))
    assert read_activations(tmp_path) is None
    write_activations(tmp_path, rules)
    assert read_activations(tmp_path) == rules
    write_activations(tmp_path, Activations())
    assert read_activations(tmp_path) == Activations()


def test_every_layer_gets_its_own_rule(tiny_llama):
    """Inputs at 4 bits but those of the down-projections at 8, outputs of K and V at 2, and nothing else."""
    names = [f"model.layers.0.{part}" for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj")]
    model, x = load_model(tiny_llama, "float32"), torch.randn(3, 256, generator=torch.Generator().manual_seed(2))
    q, k, down = (model.get_submodule(name) for name in names)
    plain = {module: module.weight.detach() for module in (q, k, down)}
    wide, rule = Rule(8, True), Rule(4, True)
    columns = torch.tensor([3, 5])
    attach_rules(model, Activations(rule, {"down_proj": wide}, BETWEEN), dict(zip(names, [None, columns, None])))
    assert torch.equal(q(x[:, :128]), fake_quantize(x[:, :128], rule) @ plain[q].T)
    assert torch.equal(k(x[:, :128]), fake_quantize(fake_quantize(x[:, :128], rule, columns) @ plain[k].T, BETWEEN))
    assert torch.equal(down(x), fake_quantize(x, wide) @ plain[down].T)


def test_an_artefact_that_says_so_is_loaded_with_its_rules(rounded, tiny_llama, tmp_path):
    rtn.quantize(QuantizeJob(tiny_llama, tmp_path, 4, {}))
    with_rules, without = (logits(load_dense(folder, "float32")[0]) for folder in (rounded, tmp_path))
    assert not torch.allclose(with_rules, without, atol=0.1)
    write_activations(tmp_path, Activations())
    assert torch.equal(logits(load_dense(tmp_path, "float32")[0]), without)


def test_an_answer_does_not_depend_on_its_batch(rounded):
    model, tokenizer = load_dense(rounded, "float32")
    asked = ["How?", "What is a lamp made of brass?", "And wool, cedar, tea and song: how many of each?", "Why?"]
    rows = [{"messages": [{"role": "user", "content": text}]} for text in asked]
    alone = [complete(model, tokenizer, [row], max_new_tokens=12, batch_size=1)[0] for row in rows]
    assert complete(model, tokenizer, rows, max_new_tokens=12, batch_size=4) == alone
    assert len(set(alone)) > 1


def test_the_rules_survive_a_patch(rounded):
    """The layers a patch trains in their place compute with the same rounded activations, and a gradient passes."""
    model, _ = load_dense(rounded, "float32")
    before = logits(model)
    layers = attach(model, read_layers(rounded), Settings(start="centre"))
    assert torch.equal(logits(model), before)
    for layer in layers.values():
        layer.position.latent.requires_grad_(True)
    model(IDS).logits.square().mean().backward()
    assert all(layer.position.latent.grad.abs().max() > 0 for layer in layers.values())
