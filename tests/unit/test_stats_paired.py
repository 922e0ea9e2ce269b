"""Paired tests against brute force and the libraries; what they do under the null; bounds of dropped pairs; Holm."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from bitsafe.stats.paired import dropped_bounds, holm, mcnemar_exact, paired_bootstrap, sign_flip

FLIPS = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(0, 7)), min_size=1, max_size=40)


def by_hand(sums) -> float:
    """Every way to swap the arms of the clusters, one by one."""
    swapped = [abs(sum(s * d for s, d in zip(signs, sums))) for signs in product((1, -1), repeat=len(sums))]
    return float(np.mean([total >= abs(sum(sums)) - 1e-9 for total in swapped]))


def test_mcnemar_on_the_example_of_statsmodels_documentation():
    table = [[101, 121], [59, 33]]  # Fleiss's table; exact p 4.434e-06
    assert mcnemar_exact(121, 59) == pytest.approx(float(mcnemar(table, exact=True).pvalue))
    assert mcnemar_exact(121, 59) == pytest.approx(4.434e-06, rel=1e-3)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_a_sign_test(up, down):
    expected = binomtest(up, up + down, 0.5).pvalue if up + down else 1.0
    assert mcnemar_exact(up, down) == pytest.approx(expected, rel=1e-9)


def test_six_flips_one_way_are_the_least_that_is_significant():
    assert mcnemar_exact(5, 0) == pytest.approx(0.0625)
    assert mcnemar_exact(6, 0) == pytest.approx(0.03125)


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=200))
def test_sign_flip_is_mcnemar_when_each_cluster_holds_one_answer(flips):
    expected = mcnemar_exact(flips.count(1), flips.count(-1))
    assert sign_flip(flips, np.arange(len(flips))) == pytest.approx(expected, rel=1e-9)


@given(FLIPS)
def test_sign_flip_of_clusters_is_the_full_enumeration(answers):
    flips, clusters = map(np.array, zip(*answers))
    sums = [int(flips[clusters == c].sum()) for c in np.unique(clusters)]
    assert sign_flip(flips, clusters) == pytest.approx(by_hand(sums))


@settings(max_examples=30)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_sign_flip_of_real_values_is_the_full_enumeration(values):
    assert sign_flip(values, np.arange(len(values))) == pytest.approx(by_hand([v for v in values if abs(v) > 1e-9]))


def test_many_real_values_are_drawn_reproducibly_and_close_to_the_truth():
    draw = np.random.default_rng(3)
    values = draw.normal(0.35, 1, 40)
    p = sign_flip(values, np.arange(40), permutations=20_000)
    assert p == sign_flip(values, np.arange(40), permutations=20_000)
    halves = np.rint(values * 1000)  # whole numbers: the exact distribution of nearly the same sums
    assert p == pytest.approx(sign_flip(halves, np.arange(40)), abs=0.01)


def test_drawn_p_is_never_zero():
    assert sign_flip(np.linspace(0.9, 0.99, 30), np.arange(30), permutations=500) == pytest.approx(1 / 501)


@given(FLIPS)
def test_sign_flip_does_not_care_which_arm_comes_first_nor_how_clusters_are_called(answers):
    flips, clusters = map(np.array, zip(*answers))
    p = sign_flip(flips, clusters)
    assert 0 < p <= 1
    assert sign_flip(-flips, clusters) == pytest.approx(p)
    assert sign_flip(flips[::-1], 100 - clusters[::-1]) == pytest.approx(p)


def test_copies_of_a_flip_are_no_further_evidence():
    """Two flips seen in three identical replicates: p stays 0.5, where independence would make it 0.03."""
    flips, prompts = np.tile([1, 1, 0, 0], 3), np.tile(np.arange(4), 3)
    assert sign_flip(flips, prompts) == 0.5
    assert sign_flip(flips, np.arange(12)) == pytest.approx(0.03125)


def test_no_difference_gives_one():
    assert sign_flip(np.zeros(50), np.arange(50)) == 1.0
    assert sign_flip([1, -1], [0, 0]) == 1.0


def test_p_under_the_null_with_strong_clusters():
    """600 null draws: at most 5 % + 3 standard errors reject; ignoring the clusters would reject a third of them."""
    draw = np.random.default_rng(0)
    clusters, rejected, ignoring, p_values = np.repeat(np.arange(20), 8), 0, 0, []
    for _ in range(600):
        flips = np.repeat(draw.choice([-1, 0, 1], 20), 8) * (draw.random(160) < 0.8)
        p_values.append(sign_flip(flips, clusters))
        rejected += p_values[-1] <= 0.05
        ignoring += sign_flip(flips, np.arange(160)) <= 0.05
    assert rejected <= 600 * 0.05 + 3 * np.sqrt(600 * 0.05 * 0.95)
    assert ignoring > 200
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.05)


def test_dropped_bounds_by_hand():
    outcome, reference = [1, 0, np.nan, 1], [0, 0, 1, np.nan]
    # known: +1, 0; third: 0-1 .. 1-1; fourth: 1-1 .. 1-0
    assert dropped_bounds(outcome, reference) == (pytest.approx(0 / 4), pytest.approx(2 / 4))
    assert dropped_bounds([1, 0], [0, 0]) == (0.5, 0.5)
    assert np.isnan(dropped_bounds([], [])).all()


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, np.nan])] * 2), min_size=1, max_size=6))
def test_dropped_bounds_are_the_extremes_of_every_completion(pairs):
    missing = [(i, j) for i, pair in enumerate(pairs) for j in (0, 1) if np.isnan(pair[j])]
    means = []
    for filling in product((0.0, 1.0), repeat=len(missing)):
        full = np.array(pairs)
        for place, value in zip(missing, filling):
            full[place] = value
        means.append((full[:, 0] - full[:, 1]).mean())
    assert dropped_bounds(*zip(*pairs)) == (pytest.approx(min(means)), pytest.approx(max(means)))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert len(holm([])) == 0


@settings(max_examples=8)  # multipletests collects garbage at every call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_that_of_statsmodels(p):
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_paired_bootstrap_is_that_of_scipy():
    draw = np.random.default_rng(5)
    before, after = draw.random(80), np.clip(draw.random(80) + 0.1, 0, 1)
    theirs = bootstrap((after - before,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    ours = paired_bootstrap(after - before, np.arange(80), draws=5000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_paired_bootstrap_draws_whole_clusters_and_never_collapses():
    differences = np.repeat([0.5, 0.0, -0.25, 0.5], 25)
    apart, together = (paired_bootstrap(differences, k) for k in (np.arange(100), np.repeat(np.arange(4), 25)))
    assert together[1] - together[0] > 3 * (apart[1] - apart[0])
    low, high = paired_bootstrap(np.zeros(50), np.arange(50))
    assert low < 0 < high
