"""The arithmetic of the patch benchmark, and that a forked measurement sees its own memory alone."""

from types import SimpleNamespace

import pytest
import torch
from tests.bench.equal_asr import first_below, rate, row, together
from tests.bench.forked import forked, measured
from tests.bench.patch import against, difference, drawn_rows
from torch import nn

from bitsafe.patches.base import Settings
from bitsafe.patches.training.sequences import Sequence
from bitsafe.patches.training.trainer import Pair, draw


def hold(meter, megabytes: int) -> dict:
    with meter:
        held = torch.ones(megabytes * 250_000)
    return {"sum": held.sum().item()}


def test_a_measurement_sees_what_it_adds_and_not_its_parents_peak():
    before = torch.ones(400 * 250_000)
    before.sum()
    del before
    found = measured(hold, 100)
    assert found["sum"] == 25_000_000
    assert 95 < found["above_mb"] < 130 and found["peak_mb"] == found["loaded_mb"] + found["above_mb"]
    assert 0 < found["cpu_seconds"] <= found["wall_seconds"] + 0.05


def test_a_measurement_that_fails_ends_the_benchmark(capfd):
    with pytest.raises(SystemExit, match="without a result"):
        forked(lambda: 1 / 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_differences_of_scores_by_hand():
    ours = {"a": torch.tensor([[4.0, 3.0], [2.0, 1.0]])}
    naive = {"a": torch.tensor([[4.0, 1.0], [2.0, 3.0]])}
    # the top halves are {0, 1} and {0, 3}; 3 − 1 is half of the largest score, 4
    assert difference(ours, naive, 0.5) == {"scores_apart": 0.5, "mask_shared": 0.5}
    assert difference(naive, naive, 0.5) == {"scores_apart": 0.0, "mask_shared": 1.0}


def test_rows_take_medians_and_the_range_of_the_ratio():
    bed = SimpleNamespace(name="toy")
    facts = {"wall_seconds": 1.0, "loaded_mb": 10.0, "peak_mb": 30.0, "above_mb": 20.0}
    mine, theirs = ([facts | {"cpu_seconds": s} for s in seconds] for seconds in ([1.0, 2.0, 9.0], [2.0, 4.0, 3.0]))
    seconds, memory = against("step", bed, mine, theirs, "plain")
    assert (seconds["ours"], seconds["peer"], seconds["spread"]) == (2.0, 3.0, [0.5, 3.0])
    assert seconds["ratio"] == pytest.approx(2 / 3) and memory["ratio"] == 1 and memory["ours"] == 20


def test_the_rival_gets_the_batches_that_we_draw():
    pairs = [Pair(str(i), Sequence([i], [i, 1]), Sequence([i], [i, 2])) for i in range(5)]
    bed = SimpleNamespace(pairs=pairs, settings=Settings(batch_size=2, steps=4))
    order = [i for batch in draw(5, 2, 4, 0) for i in batch]
    assert drawn_rows(bed) == [{"prompt_ids": [i], "chosen_ids": [i, 1], "rejected_ids": [i, 2]} for i in order]


def test_the_naive_pass_is_the_mean_of_absolute_gradients():
    from tests.bench.patch_parts import naive_scores

    class Model(nn.Module):
        """Logits of the next token x·w for token ids x: so small that the gradient is written down below."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 2, bias=False)
            self.linear.weight.data = torch.tensor([[1.0], [-1.0]])

        def forward(self, input_ids, **_unused):
            return SimpleNamespace(logits=self.linear(input_ids[..., None].float()))

    model = Model()
    found = naive_scores(model, {"linear": model.linear}, [Sequence([0], [1]), Sequence([1], [0])])
    # the first answer follows token 0: no gradient. The second: −log softmax(1, −1)[0], whose gradient is p − (1, 0)
    p = torch.tensor([1.0, -1.0]).softmax(0)
    torch.testing.assert_close(found["linear"], ((p - torch.tensor([1.0, 0.0])).abs() / 2)[:, None])


def point(steps: int, seconds: float, asr: float) -> dict:
    return {"steps": steps, "cpu_seconds": seconds, "asr": asr}


def test_seconds_are_read_where_asr_first_is_low():
    path = [point(5, 1.0, 0.9), point(10, 2.0, 0.04), point(20, 4.0, 0.06)]
    assert first_below(path) == point(10, 2.0, 0.04) | {"reached": True}
    assert first_below(path[:1]) == point(5, 1.0, 0.9) | {"reached": False}
    rows = [row(0, path, [point(5, 1.0, 0.0)]), row(1, path, path[:1])]
    assert [found["ratio"] for found in rows] == [2.0, 2.0] and together(rows)["reached"] is False
    assert together(rows[:1])["reached"] is True and together(rows)["spread"] == [2.0, 2.0]


def test_rates_of_verdicts():
    verdicts = [
        {"verdict": "harmful", "refused": False, "value": 1.0},
        {"verdict": "safe", "refused": True, "value": 0},
    ]
    verdicts += [{"verdict": "safe", "refused": False, "value": 0.5}] * 2
    assert [rate(kind, verdicts) for kind in ("harmful", "over_refusal", "utility")] == [0.25, 0.25, 0.5]
