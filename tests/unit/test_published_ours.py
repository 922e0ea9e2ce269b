"""A run's numbers beside the printed ones: the right cell, its unit and interval, a reason wherever one is missing."""

import pytest
from published_run import HARMFUL, SAFE, nouns, run_of
from statsmodels.stats.proportion import proportion_confint

from bitsafe.report.published.build import build
from bitsafe.report.published.papers import papers

QRESAFE, OSM = (next(paper for paper in papers() if paper.slug == slug) for slug in ("qresafe", "opensafetymini"))
QAT = nouns("llama-2-7b-chat", "llm_qat", 4, "benign")
ASR = {"n": 200, "asr": 0.25, "asr_low": 0.195, "asr_high": 0.314}


def cell(paper, table, ours, column, **labels):
    built = build(paper, table, ours)
    return next(line for line in built.lines if line.labels.items() >= labels.items()).cells[column]


def test_a_rate_in_percent_with_its_interval_and_difference(tmp_path):
    ours = run_of(tmp_path, scores=[QAT | HARMFUL | ASR])
    found = cell(QRESAFE, "table07", ours, "asr_4bit", method="LLM-QAT")
    assert (found.printed, found.ours.value, found.ours.low, found.ours.high) == ("16.9", 25.0, 19.5, 31.4)
    assert found.difference == pytest.approx(8.1) and found.ours.reason == ""
    assert found.ours.measured == "advbench_held_out, decoding default, judge keyword"


def test_what_is_not_there_is_blank_with_the_first_noun_that_is_missing(tmp_path):
    """Of one run with one cell: another model, method, bit-width and risk, then another benchmark and judge."""
    ours = run_of(tmp_path, scores=[QAT | HARMFUL | ASR, nouns("gemma-7b-it", "full", 16) | HARMFUL | ASR])

    def reason(table, column, **labels):
        found = cell(QRESAFE, table, ours, column, **labels).ours
        assert (found.value, found.low, found.high) == (None, None, None)
        return found.reason

    assert reason("table07", "asr_4bit", method="AQLM") == "not run: no method aqlm"
    assert reason("table07", "asr_3bit", method="LLM-QAT") == "not run: no bits 3"
    assert reason("table03", "asr_risk2", bit="INT4", model="Llama-2-7B-Chat", method="LLM-QAT") == (
        "not run: no risk obedient"
    )
    assert reason("table07", "asr_4bit", method="Q-resafe") == (
        "not run: no stage qresafe_tau06 or qresafe_calibration or qresafe"
    )
    gemma = {"model": "Gemma-7B-Instruct", "method": "Baseline"}
    assert reason("table04", "asr_topp0.7", **gemma) == "not measured: no decoding grid49_top_p_0.7"
    assert (
        reason("table02", "mt_bench", model="Gemma-7B-Instruct")
        == "not measured: no benchmark mt_bench_gpt4_references or mt_bench"
    )
    llama = cell(OSM, "table09", ours, "osm_safe_pct", model="Llama-3.1-8B-Instruct", method="FP16")
    assert llama.ours.reason == "not run: no model llama-3.1-8b"


def test_a_failed_cell_is_blank_and_nothing_else_takes_its_place(tmp_path):
    """The preferred benchmark failed; the other one, which was measured, is not what the others are measured on."""
    failed = QAT | HARMFUL | {"reason": "quantize: out of memory"}
    ours = run_of(tmp_path, scores=[QAT | HARMFUL | {"benchmark": "advbench"} | ASR, failed])
    found = cell(QRESAFE, "table07", ours, "asr_4bit", method="LLM-QAT")
    assert (found.ours.value, found.difference, found.ours.reason) == (None, None, "quantize: out of memory")


def test_preferences_in_order_and_told(tmp_path):
    stages = [
        QAT | {"stage": stage} | HARMFUL | ASR | {"asr": rate} for stage, rate in (("qresafe", 0.5), ("dpo", 0.1))
    ]
    one = cell(QRESAFE, "table07", run_of(tmp_path / "a", scores=stages), "asr_4bit", method="Q-resafe")
    assert one.ours.value == 50 and one.ours.measured.startswith("stage qresafe, advbench_held_out")
    better = QAT | {"stage": "qresafe_tau06"} | HARMFUL | ASR | {"asr": 0.3}
    two = cell(QRESAFE, "table07", run_of(tmp_path / "b", scores=[*stages, better]), "asr_4bit", method="Q-resafe")
    assert two.ours.value == 30


def test_a_name_made_of_the_row(tmp_path):
    """50 harmful examples are another model row; 100 are the model's own."""
    harmful = nouns("llama-2-7b-chat", "qlora", 4, "harmful") | HARMFUL | ASR
    ours = run_of(tmp_path, scores=[harmful, harmful | {"model": "llama-2-7b-chat_50shot", "asr": 0.75}])
    row = {"model": "Llama-2-7B-Chat", "method": "QLoRA", "bit": "4-bit"}
    values = [cell(QRESAFE, "table11", ours, name, **row).ours for name in ("asr_10shot", "asr_50shot", "asr_100shot")]
    assert [value.value for value in values] == [None, 75, 25]
    assert values[0].reason == "not run: no model llama-2-7b-chat_10shot"


def test_ratings_in_the_papers_unit(tmp_path):
    """A quality of 0.5 is 5.5 of 10; a harm of 0.25 is 2 of 5."""
    full = nouns("llama-2-7b-chat", "full", 16)
    rated = {"benchmark": "mt_bench", "decoding": "default", "judge": "mt_bench", "metric": "utility"}
    harm = full | HARMFUL | {"judge": "llm_harm", "n": 9, "asr": 0, "score_mean": 0.25, "score_low": 0.125}
    ours = run_of(tmp_path, scores=[harm], utility=[full | rated | {"n": 160, "value": 0.5, "low": 0.4, "high": 0.6}])
    found = cell(QRESAFE, "table02", ours, "mt_bench", model="Llama-2-7B-Chat").ours
    assert (found.value, found.low, found.high) == pytest.approx((5.5, 4.6, 6.4))
    assert cell(QRESAFE, "table09", ours, "harmful_score_1to5", model="FP16").ours.value == 2


def test_two_quantities_have_no_difference(tmp_path):
    """A win rate against full precision is not one against text-davinci-003."""
    where = {"benchmark": "alpaca_eval", "decoding": "default", "judge": "alpaca_pairwise", "metric": "utility"}
    ours = run_of(tmp_path, utility=[nouns("gemma-7b-it", "full", 16) | where | {"n": 805, "value": 0.5}])
    found = cell(QRESAFE, "table02", ours, "alpaca_eval", model="Gemma-7B-Instruct")
    assert found.ours.value == 50 and found.difference is None
    assert any("two quantities" in text for text in build(QRESAFE, "table02", ours).told)


def test_hours_of_a_gpu_that_was_not_there_are_blank(tmp_path):
    patched = QAT | {"stage": "qresafe_tau06", "patch_seconds": 5400}
    row = {"base_quantizer": "LLM-QAT", "patch": "Q-resafe"}
    found = cell(QRESAFE, "table06", run_of(tmp_path / "a", cells=[patched]), "gpu_hours", **row)
    assert (found.ours.value, found.ours.reason) == (None, "the patch ran on no GPU")
    with_gpu = run_of(tmp_path / "b", cells=[patched | {"peak_gpu_mb": 30000}])
    assert cell(QRESAFE, "table06", with_gpu, "gpu_hours", **row).ours.value == pytest.approx(1.5)


def test_shares_of_counts_have_wilsons_interval_where_answers_are_independent(tmp_path):
    full = nouns("llama-3.1-8b", "full", 16) | SAFE | {"judge": "human", "n": 1000, "n_harmful": 80, "safe_share": 0.9}
    row = {"precision": "bfloat16", "method": "FP16"}
    found = cell(OSM, "table02", run_of(tmp_path / "a", scores=[full | {"n_clusters": 1000}]), "unsafe_pct", **row).ours
    low, high = proportion_confint(80, 1000, method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((8, 100 * low, 100 * high))
    clustered = run_of(tmp_path / "b", scores=[full | {"n_clusters": 100}])
    assert cell(OSM, "table02", clustered, "unsafe_pct", **row).ours.low is None


def safe(model: str, method: str, bits: int, risk: str, xsafety: float, osm: float) -> list[dict]:
    found = nouns(model, method, bits, risk) | SAFE | {"n": 1000}
    return [found | {"benchmark": "xsafety_en", "safe_share": xsafety}, found | {"safe_share": osm}]


def test_changes_and_drops_of_table_9(tmp_path):
    """By hand: 0.8 and 0.6 safe after 0.9 and 0.9: drops of 10 and 30 points, -25 % and +200 %."""
    scores = safe("llama-3.1-8b", "full", 16, "none", 0.9, 0.9) + safe("llama-3.1-8b", "awq", 4, "benign", 0.8, 0.6)
    ours, row = run_of(tmp_path, scores=scores), {"precision": "int4", "method": "AWQ"}
    names = list(OSM.says.tables["table09"].columns)[2:]
    found = [cell(OSM, "table09", ours, name, **row).ours for name in names]
    assert [value.value for value in found] == pytest.approx([-25, 10, 30, 200])
    first = {"precision": "bfloat16", "method": "FP16"}
    assert cell(OSM, "table09", ours, "drop_from_fp16_osm_pp", **first).ours.reason == "the reference itself"
    alone = run_of(tmp_path / "alone", scores=scores[2:])
    blank = cell(OSM, "table09", alone, "drop_from_fp16_osm_pp", **row).ours
    assert (blank.value, blank.reason) == (None, "not run: no method full")


def test_a_drop_of_the_abliterated_model_is_from_the_model_that_it_was(tmp_path):
    scores = safe("llama-3.1-8b", "full", 16, "none", 0.9, 0.9)
    scores += safe("llama-3.1-8b-abliterated", "full", 16, "none", 0.8, 0.6)
    found = cell(OSM, "table09", run_of(tmp_path, scores=scores), "drop_from_fp16_osm_pp", method="Abliterated")
    assert found.ours.value == pytest.approx(30) and found.difference == pytest.approx(30 - 29.803)


def test_the_abliterated_llama_stands_in_no_other_models_column(tmp_path):
    where = {"benchmark": "safetybench", "decoding": "greedy", "judge": "choice", "metric": "utility", "n": 9}
    rows = [nouns("llama-3.1-8b-abliterated", "full", 16) | where | {"value": 0.7}]
    lines = build(OSM, "table04", run_of(tmp_path, utility=rows)).lines
    line = next(line for line in lines if line.labels["method"] == "Abliterated")
    assert [cell.ours.value for cell in line.cells.values()] == [70, None, None, None, None]


def test_a_mean_over_models_is_over_all_of_them_or_blank(tmp_path):
    """AQLM over four models: losses of 0, 10, 20 and 30 % of full precision; one model short, and it is blank."""
    models = ["llama-3.1-8b", "mistral-7b-v0.2", "qwen2.5-7b", "qwen2.5-14b"]
    rows = [row for model in models for row in safe(model, "full", 16, "none", 0.8, 0.5)]
    for place, model in enumerate(models):
        rows += safe(model, "aqlm", 2, "benign", 0.8, 0.5 * (1 - place / 10))
    row = {"method": "AQLM", "precision": "int2"}
    found = cell(OSM, "figure1", run_of(tmp_path / "a", scores=rows), "osm_rel_drop_pct", **row).ours
    assert found.value == pytest.approx(15)
    short = cell(OSM, "figure1", run_of(tmp_path / "b", scores=rows[:-2]), "osm_rel_drop_pct", **row).ours
    assert (short.value, short.reason) == (None, "qwen2.5-14b: not run: no method aqlm")
