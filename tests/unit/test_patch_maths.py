"""The maths of Q-resafe: values worked out by hand, and naive dense versions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitsafe.patches.shared.maths import Moments, adam_direction, critical_mask, dpo_loss, masked_update, snip_scores


def test_snip_keeps_the_absolute_value_inside_the_expectation():
    """Two examples with gradients +1 and −1 of a weight 3: their mean is 0, the importance is not."""
    weight = torch.tensor([[3.0]])
    inputs = torch.tensor([[[1.0]], [[1.0]]])
    deltas = torch.tensor([[[1.0]], [[-1.0]]])
    assert snip_scores(weight, inputs, deltas).tolist() == [[6.0]]


def test_snip_by_hand():
    """One example, two tokens: ∂L/∂W = δ₁x₁ᵀ + δ₂x₂ᵀ = [1,2]·5 + [3,4]·(−1) = [2, 6]."""
    weight = torch.tensor([[10.0, -1.0]])
    inputs = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    deltas = torch.tensor([[[5.0], [-1.0]]])
    assert snip_scores(weight, inputs, deltas).tolist() == [[20.0, 6.0]]


def test_snip_equals_one_backward_pass_an_example():
    torch.manual_seed(0)
    weight = torch.randn(4, 6, requires_grad=True)
    inputs, targets = torch.randn(5, 3, 6), torch.randn(5, 3, 4)
    naive = torch.zeros(4, 6)
    for x, t in zip(inputs, targets):
        (gradient,) = torch.autograd.grad(((x @ weight.T - t) ** 2).sum(), weight)
        naive += (weight.detach() * gradient).abs()
    deltas = 2 * (inputs @ weight.detach().T - targets)
    torch.testing.assert_close(snip_scores(weight.detach(), inputs, deltas), naive)


def test_mask_within_each_layer_and_over_all():
    scores = {"a": torch.tensor([[4.0, 3.0], [2.0, 1.0]]), "b": torch.tensor([[0.4, 0.3, 0.2, 0.1]])}
    inside = critical_mask(scores, 0.5, "tensor")
    assert inside["a"].tolist() == [[True, True], [False, False]]
    assert inside["b"].tolist() == [[True, True, False, False]]
    over_all = critical_mask(scores, 0.5, "global")
    assert over_all["a"].all() and not over_all["b"].any()


@given(st.integers(1, 40), st.floats(0, 1), st.sampled_from(["tensor", "global"]))
@settings(max_examples=50)
def test_a_mask_has_its_exact_size_even_among_ties(count, tau, scope):
    mask = critical_mask({"a": torch.zeros(1, count)}, tau, scope)["a"]
    assert int(mask.sum()) == round(tau * count)


@given(st.integers(0, 2**31), st.integers(1, 60))
@settings(max_examples=50)
def test_a_mask_over_all_layers_is_what_sorting_chooses(seed, count):
    """Scores of either sign and any size; zeros of both signs are ties."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [
        torch.randn(n, 5, generator=generator) * 10.0 ** torch.randint(-30, 30, (n, 5), generator=generator)
        for n in (3, 9)
    ]
    pieces[1][:4] = torch.tensor([0.0, -0.0, pieces[0][0, 0], 1.0, 1.0])
    masks = critical_mask({"a": pieces[0], "b": pieces[1]}, count / 60, "global")
    order = torch.cat([piece.flatten() for piece in pieces]).sort(descending=True, stable=True).indices
    expected = torch.zeros(60, dtype=torch.bool).index_fill_(0, order[:count], True)
    assert torch.equal(torch.cat([masks["a"].flatten(), masks["b"].flatten()]), expected)


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        critical_mask({"a": torch.zeros(2)}, 1.5)


def test_dpo_loss_by_hand():
    """β = 0.5, winner gained 2 nats, loser lost 2: −log σ(0.5·4) = log(1 + e⁻²)."""
    loss = dpo_loss(torch.tensor([-1.0]), torch.tensor([-5.0]), torch.tensor([-3.0]), torch.tensor([-3.0]), 0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)


def test_dpo_loss_of_the_reference_itself_is_log_two_and_prefers_the_winner():
    winner, loser = torch.tensor([-3.0], requires_grad=True), torch.tensor([-4.0], requires_grad=True)
    loss = dpo_loss(winner, loser, winner.detach(), loser.detach(), 0.1).sum()
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert (winner.grad.item(), loser.grad.item()) == (pytest.approx(-0.05), pytest.approx(0.05))


def test_adam_direction_is_adamw_without_decay():
    torch.manual_seed(1)
    gradients = torch.randn(6, 3, 2)
    ours, theirs = torch.zeros(3, 2), torch.nn.Parameter(torch.zeros(3, 2))
    moments, optimiser = Moments.zeros(ours), torch.optim.AdamW([theirs], lr=0.1, weight_decay=0)
    for gradient in gradients:
        ours = ours - 0.1 * adam_direction(gradient, moments)
        theirs.grad = gradient
        optimiser.step()
    torch.testing.assert_close(ours, theirs.detach())


def test_the_update_is_masked_and_not_only_the_gradient():
    """An entry with momentum leaves the mask: its gradient is zero, its Adam step is not, and it must stay."""
    weight, moments = torch.tensor([1.0, 1.0]), Moments.zeros(torch.zeros(2))
    adam_direction(torch.tensor([1.0, 1.0]), moments)
    step = -0.1 * adam_direction(torch.zeros(2), moments)
    assert (step != 0).all()
    after = masked_update(weight, step, torch.tensor([False, True]))
    assert after[0].item() == 1.0 and after[1].item() == pytest.approx(1.0 + step[1].item())
