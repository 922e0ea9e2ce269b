"""The cost of a patch: products counted by hand, the proportion that stands for the rest, time and memory."""

import time

import pytest
import torch
import torch.nn.functional as F
from test_patch_training import PAIRS, everything, quantize, snip_once, tiny
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bitsafe.patches.base import Settings
from bitsafe.patches.shared.cost import Counting, Flops, Watch, padded_tokens
from bitsafe.patches.training.latent import attach
from bitsafe.patches.training.sequences import Sequence
from bitsafe.patches.training.snip import score_weights
from bitsafe.patches.training.state import Saved
from bitsafe.patches.training.trainer import Trainer


def trainer_of(score, **params) -> Trainer:
    model, settings = tiny(), Settings.read(params)
    return Trainer(model, attach(model, quantize(model), settings), PAIRS, settings, score, seed=0)


def test_a_product_is_two_m_n_k_and_its_backward_pass_two_more():
    x, layer = torch.randn(5, 3, requires_grad=True), nn.Linear(3, 7, bias=False)
    with Counting() as counted:
        y = layer(x)
    assert counted.flops == 2 * 5 * 7 * 3
    with Counting() as counted:
        y.sum().backward()
    assert counted.flops == 2 * (2 * 5 * 7 * 3)  # ∂L/∂x and ∂L/∂W


def test_attention_on_a_cpu_is_counted_by_hand():
    """Two products of [tokens, width] a head forward; backward five, one of them to make the scores again."""
    q, k, v = (torch.randn(2, 3, 8, 4, requires_grad=True) for _ in range(3))
    with Counting() as counted:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    one = 2 * 3 * (2 * 8 * 8 * 4)
    assert counted.flops == 2 * one
    with Counting() as counted:
        y.sum().backward()
    assert counted.flops == 5 * one


def test_it_counts_what_torch_counts_where_torch_counts_all():
    model, ids = tiny(), torch.arange(6)[None]
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as theirs:
        model(ids).logits.sum().backward()
    with Counting() as ours:
        model(ids).logits.sum().backward()
    assert ours.flops == theirs.get_total_flops() > 0


def test_a_scoring_pass_by_hand():
    """Two sequences of 5 tokens through 2 layers of width 16 with 2 heads of 8, and 32 words."""
    trainer = trainer_of(snip_once)
    answers = [Sequence([1, 2], [3, 4, 5]), Sequence([1, 2], [6, 7, 8])]
    with Counting() as counted:
        score_weights(trainer.model, trainer.layers, answers, batch_size=2)
    weights = sum(layer.touched.numel() for layer in trainer.layers.values())
    scored = 3 * (2 * 10 * weights)  # forward, the gradient of the input, and of the weight, example by example
    words = 2 * (2 * 10 * 32 * 16)  # forward, and the gradient of the input alone
    attention = 2 * (2 + 5) * (2 * 2 * (2 * 5 * 5 * 8))  # layers × products × sequences and heads × one product
    angles = 2 * 4 * 5  # of the rotary embedding: half a head's width by the positions
    assert counted.flops == scored + words + attention + angles


def test_work_that_repeats_is_counted_once_and_taken_in_proportion():
    flops, weight = Flops(), torch.randn(4, 3)
    for tokens in (10, 5, 20):
        with flops.of("step", tokens):
            F.linear(torch.randn(tokens, 3), weight)
    assert flops.total == 2 * (10 + 5 + 20) * 4 * 3
    with flops.of("scores", 1):
        pass
    assert flops.total == 840


def test_padding_counts():
    assert padded_tokens([Sequence([1], [2, 3]), Sequence([1], [2, 3, 4, 5])]) == 10


@pytest.mark.parametrize("score", [snip_once, everything])
@pytest.mark.parametrize("objective", ["dpo", "sft"])
def test_a_training_costs_what_a_full_count_says(score, objective):
    """The first step stands for all 9 of unlike lengths: attention, which is not proportional, makes the difference."""
    trainer = trainer_of(score, objective=objective, steps=9, refresh_every=3, batch_size=2)
    with Counting() as counted:
        trainer.run()
    assert trainer.flops.total == pytest.approx(counted.flops, rel=0.03)
    assert trainer.flops.total != counted.flops, "this is a test of a proportion"


def test_an_interrupted_training_keeps_its_count(tmp_path):
    whole = trainer_of(snip_once, steps=6, refresh_every=3, batch_size=2)
    whole.run()
    first = trainer_of(snip_once, steps=6, refresh_every=3, batch_size=2)
    saved = Saved(tmp_path / "state.safetensors", "key", every=0.0)
    step = first._step

    def killed(number, batch):
        if number == 4:
            raise KeyboardInterrupt
        return step(number, batch)

    first._step = killed
    with pytest.raises(KeyboardInterrupt):
        first.run(saved)
    second = trainer_of(snip_once, steps=6, refresh_every=3, batch_size=2)
    second.run(saved)
    assert second.flops.total == pytest.approx(whole.flops.total, rel=0.03)


def test_time_and_memory_are_those_since_the_watch_began():
    ballast = bytearray(200_000_000)
    del ballast  # what was there before does not count
    watch = Watch()
    time.sleep(0.01)
    held = bytearray(100_000_000)
    del held
    facts = watch.facts()
    assert 0.01 <= facts["seconds"] < 5
    assert 99 < facts["added_memory_mb"] < 150
    assert facts["peak_memory_mb"] >= facts["added_memory_mb"] + 50  # Python and torch themselves


def test_where_the_mark_cannot_be_reset_the_peak_of_the_process_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("bitsafe.patches.shared.cost._CLEAR", tmp_path)  # as a file that cannot be written
    facts = Watch().facts()
    assert facts["peak_memory_mb"] > 50 and "added_memory_mb" not in facts
