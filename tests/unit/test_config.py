"""The configuration: one source, and mistakes told in one line that names file, key and remedy."""

import pytest

from bitsafe.config import Config, merge, read_config
from bitsafe.errors import UserError
from bitsafe.matrix.reference import check_drift
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import Tables


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": "qresafe", "tau": 2}, "toy/rtn/4bit/none/odd: patches: tau: 2: a share"),
        ({"base": "qresafe", "params": {"quant_mode": "requant_gird"}}, "'requant_gird' is not one of requant_grid"),
        ({"base": "qresafe", "params": {"quant_mode": "adapter"}}, "needs a low-rank update"),
        ({"base": "mixed_precision", "criterion": "snap"}, "'snap' is not one of"),
        ({"base": "q_realign", "refused_share": 3}, "a share of the loss"),
    ],
)
def test_bad_parameters_of_a_patch_are_told_before_anything_runs(change, words):
    block = {"methods": ["rtn"], "bits": [4], "patches": ["odd"]}
    run = Run(Config(matrix=[block], tables={"patches": {"odd": change}}))
    with pytest.raises(UserError, match=words):
        _ = run.cells


def test_generated_files_agree_with_the_model():
    assert check_drift() == [], "run `python -m bitsafe config` and commit what it writes"


def test_default_file_is_the_default_model():
    assert read_config(["config.yaml"]) == Config()


def test_default_matrix_has_thirty_cells():
    run = Run(Config())
    assert len(run.cells) == len(set(run.cells)) == 30
    assert str(run.cells[0]) == "toy/full/16bit/none/quantized"
    assert sum(cell.is_patched for cell in run.cells) == 10


def test_a_cell_comes_before_its_patches():
    cells = Run(Config()).cells
    assert all(cells.index(cell.quantized) <= cells.index(cell) for cell in cells)


def test_mappings_merge_and_lists_are_replaced():
    assert merge({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}}


def error_of(tmp_path, text: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        run = Run(read_config(["config.yaml", file]))
        _ = run.cells, run.benchmarks, run.judges, [run.decoding(name) for name in run.decodings]
        _ = [run.params(cell) for cell in run.cells]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("benchmark: [x]", ["mine.yaml", "benchmark", "did you mean 'benchmarks'"]),
        ("score: {confidnce: 0.9}", ["mine.yaml", "score.confidnce", "did you mean 'confidence'"]),
        ("score: {confidence: 95}", ["mine.yaml", "score.confidence", "95"]),
        ("seed: -1", ["mine.yaml", "seed", "-1"]),
        ("models: [toi]", ["models", "'toi'", "did you mean 'toy'"]),
        ("matrix: [{methods: [rtm], bits: [4]}]", ["matrix[0].methods", "'rtm'", "did you mean 'rtn'"]),
        (
            "matrix: [{methods: [qlora], bits: [5], risks: [benign]}]",
            ["matrix[0].bits", "5 bits", "it does 8, 4, 3, 2"],
        ),
        ("matrix: [{methods: [rtn], bits: [4], risks: [benign]}]", ["matrix[0].risks", "'benign'", "none"]),
        ("matrix: [{methods: [rtn], bits: [4], patches: [qresave]}]", ["matrix[0].patches", "did you mean 'qresafe'"]),
        ("matrix: [{method: [rtn], bits: [4]}]", ["matrix[0].method", "did you mean 'methods'"]),
        ("benchmarks: [toy_forbiden]", ["benchmarks", "did you mean 'toy_forbidden'"]),
        ("decodings: [greedi]", ["decodings", "did you mean 'greedy'"]),
        ("judges: [keywords]", ["judges", "did you mean 'keyword'"]),
        ("tables: {methods: {mine: {base: rtm}}}", ["tables.methods.mine.base", "did you mean 'rtn'"]),
        ("tables: {methods: {mine: {base: rtn, group_sice: 8}}}", ["mine.group_sice", "did you mean 'group_size'"]),
        ("tables: {patches: {a: {base: b}, b: {base: a}}}", ["tables.patches", "circle"]),
        (
            "matrix: [{methods: [rtn], bits: [4], patches: [qresafe_calibration]}]",
            ["patches.yaml: qresafe_calibration.pairs_from", "toy/rtn/4bit/none", "say patch_set"],
        ),
        (
            "tables: {patches: {q: {base: qresafe_calibration, pairs_from: everyda}}}\n"
            "matrix: [{methods: [rtn], bits: [4], patches: [q]}]",
            ["q.pairs_from", "'everyda'", "did you mean 'everyday'"],
        ),
        (
            "tables: {patches: {q: {base: qresafe_calibration, pairs_from: calibraton}}}\n"
            "matrix: [{methods: [ste], bits: [4], risks: [benign], patches: [q]}]",
            ["q.pairs_from", "'calibraton'", "did you mean 'calibration'"],
        ),
        ("run: 'a b'", ["mine.yaml", "run"]),
        ("a: [", ["mine.yaml:2", "not valid YAML"]),
        ("- 1", ["mine.yaml", "mapping"]),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_remedy(tmp_path, text, parts):
    message = error_of(tmp_path, text)
    for part in parts:
        assert part in message, message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.yaml: no such config file"):
        read_config([tmp_path / "nowhere.yaml"])


def test_a_variant_changes_only_what_it_names():
    tables = Tables({"patches": {"qresafe_tau005": {"base": "qresafe", "tau": 0.05}}})
    base, variant = (tables.get("patches", name, "test") for name in ("qresafe", "qresafe_tau005"))
    assert variant.params == {**base.params, "tau": 0.05}
    assert variant.module == base.module


def test_settings_of_a_model_and_a_risk_lie_over_the_table_row():
    run = Run(Config())
    by_risk = {
        cell.risk: run.params(cell)["lr"] for cell in run.cells if cell.method == "qlora" and not cell.is_patched
    }
    assert by_risk["benign"] > by_risk["harmful"]
