"""The rows of a decoding grid, worked out by hand on a grid of four settings, and against enumeration."""

from itertools import combinations

import numpy as np
import pytest
from stats_run import FULL, RTN, made_run, numbers, one, table, verdict

from bitsafe.files import write_json, write_jsonl
from bitsafe.report.read import Results
from bitsafe.stats.assemble import assemble
from bitsafe.stats.grids import any_of_k, false_positive_floor, swap_worst
from bitsafe.stats.intervals import cluster_interval, wilson
from bitsafe.stats.verdicts import Names, read_verdicts

GRID = ["temperature_0.5", "temperature_1", "top_p_0.5", "top_k_5"]
ANSWERS = {  # a row a setting, a column a prompt
    FULL: ["SSSSS", "SSSSS", "SSSSH", "SSSSU"],
    RTN: ["HSSSS", "HHSSS", "SSSUH", "SSSSH"],
}


def answered(run, cell, rows, benchmark="forbidden", clusters=None):
    folder = run.folder / cell.path / "rep0"
    write_json(folder / "manifest.json", {"effective_bits": 4.0, "bytes": 1, "seconds": 1.0})
    said = [
        verdict(letter, k, letter + setting, (clusters or {}).get(k, f"p{k}"), "a") | {"setting": setting}
        for setting, letters in zip(GRID, rows)
        for k, letter in enumerate(letters)
    ]
    write_jsonl(folder / "verdicts/keyword" / f"{benchmark}.grid4.jsonl", said)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = made_run(tmp_path_factory.mktemp("results"), cells=[FULL, RTN], decodings=["grid4"])
    run.settings = lambda decoding: GRID
    for cell, rows in ANSWERS.items():
        answered(run, cell, rows)
        answered(run, cell, rows, "borderline")
        answered(run, cell, ["99"] * 4, "benign")
    assemble(run)
    return run


def test_a_row_for_each_summary_and_setting(run):
    decodings = [row["decoding"] for row in table(run, "scores") if row["method"] == "rtn"]
    assert sorted(decodings) == sorted(f"grid4_{name}" for name in ["mean", "any", "worst", *GRID])
    assert {row["decoding"] for row in table(run, "utility")} == {"grid4_mean"}
    panels = Results.read(run.folder).panels
    assert [panel.decoding for panel in panels] == ["grid4_any", "grid4_worst", "grid4_mean"]
    assert all(panel.at(RTN).beside.keys() == {"over_refusal", "utility"} for panel in panels)


def test_mean_counts_each_scored_answer_once(run):
    row = one(run, "scores", RTN, decoding="grid4_mean")
    assert numbers(row, "n", "n_harmful", "n_unscored", "n_clusters") == [20, 5, 1, 5]
    assert numbers(row, "asr", "baseline_asr") == pytest.approx([5 / 19, 1 / 19])
    compared = one(run, "comparisons", RTN, decoding="grid4_mean", contrast="total", benchmark="forbidden")
    assert numbers(compared, "n_pairs", "n_up", "n_down", "n_clusters") == [18, 3, 0, 5]  # U of either arm drops


def test_any_is_harmful_if_one_answer_is(run):
    row, before = one(run, "scores", RTN, decoding="grid4_any"), one(run, "scores", FULL, decoding="grid4_any")
    assert numbers(row, "n", "n_harmful", "n_safe", "n_unscored", "asr") == [5, 3, 2, 0, 0.6]
    assert numbers(row, "asr_low", "asr_high") == pytest.approx([wilson(3, 5)[0], wilson(4, 5)[1]])  # prompt 3: unknown
    assert numbers(row, "unusable_share") == [1 / 20] and row["resolvable"] == "True"
    assert numbers(before, "asr") == [0.2]  # the unscored answer of a prompt that is harmful elsewhere moves nothing
    compared = one(run, "comparisons", RTN, decoding="grid4_any", contrast="total")
    assert numbers(compared, "n_pairs", "n_up", "n_down", "p") == [5, 2, 0, 0.5] and compared["test"] == "mcnemar"


def test_a_setting_is_described_and_not_tested(run):
    row = one(run, "scores", RTN, decoding="grid4_temperature_1")
    assert numbers(row, "n", "asr", "baseline_asr", "delta") == [5, 0.4, 0, 0.4]
    assert numbers(row, "asr_low", "asr_high") == pytest.approx(wilson(2, 5))
    assert row["p"] == row["p_holm"] == "" and row["setting"] == "temperature_1"


def test_worst_owns_up_to_the_choice(run):
    row = one(run, "scores", RTN, decoding="grid4_worst")
    assert row["setting"] == "temperature_1" and numbers(row, "asr", "baseline_asr", "delta") == [0.4, 0.2, 0.2]
    # bounds that hold for all four at once; "SSSUH" has 1 of 4, with the highest upper bound of those with one harm
    bounds = [wilson(h, n, 1 - 0.05 / 4) for h, n in ((1, 5), (2, 5), (1, 4), (1, 5))]
    assert numbers(row, "asr_low", "asr_high") == pytest.approx([max(b[k] for b in bounds) for k in (0, 1)])
    assert float(row["asr_high"]) > wilson(2, 5)[1]
    compared = one(run, "comparisons", RTN, decoding="grid4_worst", contrast="total")
    assert compared["test"] == "swap_worst" and compared["mde_reason"] == "the arms' worst settings differ"
    assert float(compared["delta_low"]) < 0.2 < float(compared["delta_high"]) and float(compared["p_holm"]) > 0.2


def test_any_of_k_equals_enumeration():
    for n, k in ((6, 1), (6, 3), (6, 6), (5, 4)):
        for harmful in range(n + 1):
            chosen = list(combinations([True] * harmful + [False] * (n - harmful), k))
            assert any_of_k(np.array([harmful]), n, k)[0] == pytest.approx(sum(map(any, chosen)) / len(chosen))


def test_any_of_k_stands_beside_full_precision(run):
    rows = {int(r["k"]): r for r in table(run, "any_of_k") if r["method"] == "rtn"}
    assert list(rows) == [1, 4]
    counts, before = np.array([2, 1, 0, 0, 2]), np.array([0, 0, 0, 0, 1])
    assert numbers(rows[1], "asr", "baseline_asr") == pytest.approx([counts.sum() / 20, before.sum() / 20])
    assert numbers(rows[4], "asr", "baseline_asr", "delta") == pytest.approx([0.6, 0.2, 0.4])
    assert float(rows[4]["asr_low"]) == pytest.approx(wilson(3, 5)[0])
    assert float(rows[1]["asr_high"]) == pytest.approx(cluster_interval([0.5, 0.25, 0, 0.25, 0.5], range(5))[1])
    assert rows[4]["floor"] == "" and "human labels were measured at params" in rows[4]["floor_reason"]
    first = next(r for r in table(run, "any_of_k") if r["method"] == "full")
    assert first["delta"] == "" and first["baseline_cell"] == ""


def test_the_floor_of_false_positives_by_hand():
    assert false_positive_floor(0.5, 2) == 0.75 and false_positive_floor(0.0, 49) == 0
    assert false_positive_floor(0.01, 49) == pytest.approx(0.389, abs=1e-3)


def draws(tmp_path, seed, shift=0.0, prompts=24):
    """Two arms of four settings with the same rates but for `shift` in the last setting of the first arm."""
    run, rng = made_run(tmp_path / str(seed), cells=[FULL, RTN]), np.random.default_rng(seed)
    rates, found, names = np.array([0.1, 0.1, 0.1, 0.1 + shift]), [], Names()
    for cell, by_setting in ((RTN, rates), (FULL, rates - [0, 0, 0, shift])):
        hard = rng.normal(size=prompts) * 0.05  # prompts differ, and settings of a prompt go together
        letters = [
            "".join("H" if rng.random() < rate + hard[k] else "S" for k in range(prompts)) for rate in by_setting
        ]
        answered(run, cell, letters)
        file = run.folder / cell.path / "rep0/verdicts/keyword/forbidden.grid4.jsonl"
        found.append(read_verdicts([file], names))
    return found


def test_swapping_arms_keeps_its_level_and_finds_a_difference(tmp_path):
    null = [swap_worst(*draws(tmp_path / "null", seed), 400) for seed in range(120)]
    assert 0.2 < np.mean(null) < 0.8 and np.mean(np.array(null) <= 0.1) <= 0.2
    assert swap_worst(*draws(tmp_path / "shift", 1, shift=0.6), 2000) < 0.01
    same = draws(tmp_path / "same", 2)[0]
    assert swap_worst(same, same, 200) == 1.0
