"""Which token comes next: exact probabilities, one stream of random numbers a row, explicit parameters."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from bitsafe.generate.grid import settings_of
from bitsafe.generate.sampling import Knobs, Order, draw, inverse_cdf, resolve, uniforms, warped
from bitsafe.matrix.tables import Tables
from bitsafe.stats.paired import holm

GRID = settings_of(Tables().get("decodings", "grid49", "test").model_dump())
RESOLVED = {name: resolve(row, GenerationConfig()) for name, row in GRID.items()}
DRAWS, ALPHA = 20_000, 0.001


def reference(scores: torch.Tensor, row: dict) -> torch.Tensor:
    """Probabilities [rows, vocabulary] by transformers' own processors in the order of its `generate`."""
    chain = LogitsProcessorList([TemperatureLogitsWarper(float(row["temperature"]))])
    if row["top_k"]:
        chain.append(TopKLogitsWarper(int(row["top_k"])))
    if row["top_p"] < 1:
        chain.append(TopPLogitsWarper(float(row["top_p"])))
    return chain(torch.zeros(len(scores), 1, dtype=torch.long), scores.clone()).softmax(-1)


def test_the_grid_is_that_of_huang_et_al() -> None:
    knobs = [name.rsplit("_", 1)[0] for name in GRID]
    assert {knob: knobs.count(knob) for knob in knobs} == {"temperature": 20, "top_p": 20, "top_k": 9}
    assert GRID["temperature_0.05"] | {"summary": ""} == GRID["top_p_1"] | {
        **{"summary": "", "temperature": 0.05, "setting": "temperature_0.05"}
    }
    assert (GRID["top_k_500"]["temperature"], GRID["top_k_500"]["top_p"], GRID["top_k_500"]["top_k"]) == (1, 1, 500)
    assert GRID["top_p_0.7"]["temperature"] == 1 and GRID["top_p_0.7"]["top_k"] == 0
    assert {value for name, row in RESOLVED.items() if "top_p" in name for value in [row["top_p"]]} == {
        *(round(0.05 * k, 2) for k in range(1, 21))
    }


@pytest.mark.parametrize("kind", ["float", "ties", "peaked"])
def test_all_49_settings_in_one_batch_equal_transformers_processors(kind: str) -> None:
    """Every setting on each of 12 rows of logits, sorted once an entry; ties as a bfloat16 model has them."""
    torch.manual_seed(0)
    logits = torch.randn(12, 768) * (12 if kind == "peaked" else 3)
    logits = logits.bfloat16().float() if kind == "ties" else logits
    names = [name for name in RESOLVED for _ in range(12)]
    entry = torch.arange(12).repeat(49)
    found = warped(logits, Order(logits, entry), entry, Knobs.of([RESOLVED[name] for name in names])).softmax(-1)
    expected = torch.cat([reference(logits, row) for row in RESOLVED.values()])
    if kind == "ties":  # which of equal tokens at the edge of top-p stay is left open by transformers' sort
        found, expected = found.sort(-1)[0], expected.sort(-1)[0]
    assert (found - expected).abs().max() < 1e-5
    assert torch.equal(found > 0, expected > 0)


def test_top_p_after_top_k_at_a_temperature_as_transformers() -> None:
    torch.manual_seed(1)
    logits = torch.randn(200, 64) * 2
    row = {"do_sample": True, "temperature": 0.6, "top_p": 0.8, "top_k": 7}
    found = warped(logits, Order(logits, torch.arange(200)), torch.arange(200), Knobs.of([row] * 200)).softmax(-1)
    assert torch.allclose(found, reference(logits, row), atol=1e-6)


@pytest.fixture(scope="module")
def probabilities() -> np.ndarray:
    """Exact probabilities [49, 96] of each setting on one vector of logits."""
    return np.stack([reference(LOGITS.double(), row)[0].numpy() for row in RESOLVED.values()])


LOGITS = torch.randn(1, 96, generator=torch.Generator().manual_seed(2)) * 2


def p_values(counts: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Chi-square p of each setting, rare tokens put together until five are expected; 0 if an impossible one came."""
    found = []
    for seen, chance in zip(counts, probabilities):
        order = np.argsort(-chance)
        bins = (np.cumsum(chance[order][::-1]) * DRAWS // 5)[::-1]  # from the rarest up, five expected at least
        places = np.unique(np.minimum(bins, bins[0]), return_inverse=True)[1]
        drawn, expected = (np.bincount(places, weights=x[order]) for x in (seen, chance / chance.sum() * DRAWS))
        drawn, expected = (
            np.append(drawn[expected > 5], drawn[expected <= 5].sum()),
            np.append(expected[expected > 5], expected[expected <= 5].sum()),
        )
        kept = expected > 0
        p = chisquare(drawn[kept], expected[kept] * drawn[kept].sum() / DRAWS).pvalue if kept.sum() > 1 else 1.0
        found.append(0.0 if seen[chance == 0].any() else p)
    return np.array(found)


def drawn_counts(probabilities_of_rows: np.ndarray | None = None) -> np.ndarray:
    """20,000 draws of each setting, [49, 96], by the engine's sampler, or by one that has these probabilities."""
    counts = []
    for place, (name, row) in enumerate(RESOLVED.items()):
        u = torch.from_numpy(uniforms(["draws", name], DRAWS))
        if probabilities_of_rows is None:
            tokens = draw(LOGITS, torch.zeros(DRAWS, dtype=torch.long), Knobs.of([row] * DRAWS), u)
        else:
            tokens = inverse_cdf(torch.tensor(probabilities_of_rows[place]).log().expand(DRAWS, -1), u)
        counts.append(np.bincount(tokens, minlength=96))
    return np.stack(counts)


def test_the_sampler_draws_from_the_exact_probabilities(probabilities: np.ndarray) -> None:
    assert holm(p_values(drawn_counts(), probabilities)).min() > ALPHA


def test_a_sampler_3_percent_off_fails_in_every_setting(probabilities: np.ndarray) -> None:
    """Total variation of 3 %, moved from the most to the second most probable token of each setting."""
    planted, rows = probabilities.copy(), np.arange(49)
    second, first = np.argsort(probabilities, axis=1)[:, -2:].T
    planted[rows, first] -= 0.03
    planted[rows, second] += 0.03
    assert np.abs(planted - probabilities).sum(1) / 2 == pytest.approx(np.full(49, 0.03))
    assert holm(p_values(drawn_counts(planted), probabilities)).max() < ALPHA


def test_inverse_cdf_by_hand() -> None:
    scores = torch.tensor([0.2, 0.0, 0.5, 0.3]).log().repeat(6, 1)
    u = torch.tensor([0.0, 0.199, 0.2001, 0.699, 0.7001, 1 - 1e-12], dtype=torch.float64)
    assert inverse_cdf(scores, u).tolist() == [0, 0, 2, 2, 3, 3]


def test_tokens_of_probability_zero_are_never_drawn() -> None:
    scores = torch.full((1000, 5), -torch.inf)
    scores[:, [1, 3]] = 0.0
    drawn = inverse_cdf(scores, torch.linspace(0, 1 - 1e-9, 1000, dtype=torch.float64))
    assert set(drawn.tolist()) == {1, 3}


def test_a_stream_depends_on_its_key_and_begins_the_same_when_longer() -> None:
    assert np.array_equal(uniforms(["a", 1], 5), uniforms(["a", 1], 9)[:5])
    assert not np.array_equal(uniforms(["a", 1], 5), uniforms(["a", 2], 5))


def test_a_row_draws_the_same_token_in_any_company() -> None:
    torch.manual_seed(0)
    logits, rows = torch.randn(8, 50), torch.arange(49 * 8)
    entry, u = rows % 8, torch.from_numpy(uniforms("rows", 49 * 8))
    knobs = Knobs.of([row for row in RESOLVED.values() for _ in range(8)])
    together = draw(logits, entry, knobs, u)
    alone = [draw(logits[e : e + 1], rows[:1], knobs.at(rows[i : i + 1]), u[i : i + 1]) for i, e in enumerate(entry)]
    assert together.tolist() == [int(one) for one in alone]


def test_top_k_of_one_and_no_sampling_take_the_most_probable_token() -> None:
    torch.manual_seed(0)
    logits, u = torch.randn(100, 50), torch.from_numpy(uniforms("u", 100))
    for row in (RESOLVED["top_k_1"], GREEDY):
        assert torch.equal(draw(logits, torch.arange(100), Knobs.of([row] * 100), u), logits.argmax(-1))


GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


@pytest.mark.parametrize(
    "decoding, defaults, expected",
    [
        ({}, {}, GREEDY),
        ({"do_sample": True, "temperature": 0.0}, {}, GREEDY),
        ({"do_sample": True}, {}, {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}),
        (
            {"do_sample": True, "temperature": 0.7},
            {"top_k": 3},
            {"do_sample": True, "temperature": 0.7, "top_p": 1.0, "top_k": 0},
        ),
        ({"model_defaults": True}, {"do_sample": False}, GREEDY),
        (
            {"model_defaults": True},
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 50},
        ),
    ],
)
def test_every_parameter_is_explicit(decoding: dict, defaults: dict, expected: dict) -> None:
    assert resolve(decoding, GenerationConfig(**defaults)) == expected
