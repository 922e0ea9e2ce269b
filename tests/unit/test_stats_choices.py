"""Constant predictors and flips: hand-worked letters of two cells."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from stats_run import FULL, PATCHED, RTN, STE, made_run, numbers, one

from bitsafe.files import write_json, write_jsonl
from bitsafe.stats.assemble import assemble
from bitsafe.stats.intervals import wilson

RIGHT = "AAAABBBCCD" * 4  # A is right most often: the best constant predictor has 0.4
SAID = {
    FULL: "AAAABBBCCA" * 4,  # 36 of 40 right
    RTN: "A" * 40,  # the constant predictor itself
    STE: "BAAABBBCCD" * 4,  # 36 of 40 right, too: 4 went wrong, 4 came right
    PATCHED: "DDDDDDDDDD" * 4,  # 4 of 40, below the constant predictor
}


def verdict(place: int, said: str, right: str) -> dict:
    scored = {"verdict": "safe", "reason": "", "refused": None, "value": float(said == right), "degenerate": False}
    named = {"id": f"q{place}", "sample": 0, "category": "", "cluster": f"q{place}", "answer_sha": said}
    return named | scored | {"said": said, "right": right}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    asked = {"questions": SimpleNamespace(kind="utility", asks="choice")}
    run = made_run(tmp_path_factory.mktemp("results"), cells=[FULL, RTN, STE, PATCHED], benchmarks=asked)
    run.judges = ["choice"]
    for cell, letters in SAID.items():
        folder = run.folder / cell.path / "rep0"
        write_json(folder / "manifest.json", {"effective_bits": 4, "bytes": 1, "seconds": 1.0})
        rows = [verdict(place, *pair) for place, pair in enumerate(zip(letters, RIGHT))]
        rows.append(
            verdict(40, "", "A") | {"verdict": "unscored", "value": None} if cell == RTN else verdict(40, "A", "A")
        )
        if cell == RTN:
            del rows[-1]["said"], rows[-1]["right"]
        write_jsonl(folder / "verdicts/choice/questions.default.jsonl", rows)
    assemble(run)
    return run


def test_a_constant_predictor_is_told_and_a_good_one_is_not(run: SimpleNamespace) -> None:
    rtn, full, patched = (one(run, "utility", cell, metric="utility") for cell in (RTN, FULL, PATCHED))
    assert (rtn["constant_letter"], rtn["equals_constant"]) == ("A", "True")
    assert numbers(rtn, "n", "value", "constant_share", "constant_value") == [40, 0.4, 1.0, 0.4]
    assert (full["constant_letter"], full["equals_constant"]) == ("A", "False")
    assert numbers(full, "value", "constant_share", "constant_value") == pytest.approx([37 / 41, 21 / 41, 17 / 41])
    assert float(full["low"]) == pytest.approx(wilson(37, 41)[0]) and float(full["low"]) > 17 / 41
    assert (patched["constant_letter"], patched["equals_constant"]) == ("D", "True"), "worse than a constant, too"


def test_flips_count_both_ways_where_the_accuracy_sees_nothing(run: SimpleNamespace) -> None:
    ste = one(run, "utility", STE, metric="utility")
    assert float(ste["delta"]) == 0 and float(ste["flip_rate"]) == pytest.approx(8 / 41)
    assert numbers(ste, "flip_low", "flip_high") == pytest.approx(list(wilson(8, 41)))
    assert one(run, "utility", FULL, metric="utility")["flip_rate"] == ""
    repaired = one(run, "utility", PATCHED, metric="utility")
    against_full = one(run, "comparisons", PATCHED, contrast="total")
    against_ste = one(run, "comparisons", PATCHED, contrast="repair")
    assert repaired["flip_rate"] == against_full["flip_rate"], "flips are told against full precision"
    assert float(against_full["flip_rate"]) == pytest.approx(40 / 41)  # all 36 went wrong, 4 came right
    assert float(against_ste["flip_rate"]) == pytest.approx(32 / 41)  # 36 were right, 4 of them (D) still are


def test_a_file_without_letters_says_nothing(tmp_path: Path) -> None:
    from bitsafe.stats.scores import constant_columns

    write_jsonl(tmp_path / "v.jsonl", [{"id": "1"}])
    assert constant_columns([tmp_path / "v.jsonl"], 0.5) == {}
