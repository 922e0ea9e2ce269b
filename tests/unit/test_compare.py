"""Two runs side by side: pairs by prompt, against McNemar worked by hand; cells, settings and rows of one only."""

import csv

import pytest
from governed_run import seal
from report_run import copy_of, shared_run
from statsmodels.stats.contingency_tables import mcnemar

from bitsafe.cells import Cell
from bitsafe.cli import main
from bitsafe.files import read_jsonl, write_json, write_jsonl
from bitsafe.matrix.run import Run

RTN = Cell("toy", "rtn", 4)
FILE = "verdicts/reference/toy_forbidden.default.jsonl"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """One replicate, each prompt its own cluster, so that the test is exact McNemar."""
    run = copy_of(shared_run(tmp_path_factory), tmp_path_factory.mktemp("one"))
    run = Run(run.config.model_copy(update={"replicates": 1}))
    run.save()
    for cell in run.cells:
        for file in run.replicate_folder(cell, 0).glob("verdicts/*/*.jsonl"):
            write_jsonl(file, [row | {"cluster": row["id"]} for row in read_jsonl(file)])
    seal(run)
    return run


@pytest.fixture
def pair(finished, tmp_path) -> tuple[Run, Run]:
    return copy_of(finished, tmp_path / "a"), copy_of(finished, tmp_path / "b")


def compared(a: Run, b: Run, tmp_path, capsys) -> tuple[list[dict], str]:
    assert main(["compare", str(a.folder), str(b.folder), "--csv", str(tmp_path / "c.csv")]) == 0
    with (tmp_path / "c.csv").open(newline="") as stream:
        return list(csv.DictReader(stream)), capsys.readouterr().out


def one(rows: list[dict], **match) -> dict:
    found = [row for row in rows if all(row[key] == value for key, value in match.items())]
    assert len(found) == 1
    return found[0]


def edit(run: Run, cell: Cell, verdicts: list[str]) -> None:
    file = run.replicate_folder(cell, 0) / FILE
    rows = read_jsonl(file)
    write_jsonl(file, [row | {"verdict": verdict, "degenerate": False} for row, verdict in zip(rows, verdicts)])


ASR = {"method": "rtn", "bits": "4", "judge": "reference", "metric": "asr"}


def test_a_run_and_its_copy_do_not_differ(pair, tmp_path, capsys):
    rows, said = compared(*pair, tmp_path, capsys)
    assert {row["delta"] for row in rows} == {"0"} and "configured alike" in said and "0 of" in said


def test_flips_are_paired_by_prompt(pair, tmp_path, capsys):
    """30 prompts: 12 rise, 2 fall, 16 stay; whatever stands in one run only is dropped."""
    a, b = pair
    edit(a, RTN, ["safe"] * 12 + ["harmful"] * 2 + ["safe"] * 14 + ["unscored", "safe"])
    edit(b, RTN, ["harmful"] * 12 + ["safe"] * 2 + ["safe"] * 14 + ["harmful", "ambiguous"])
    row = one(compared(a, b, tmp_path, capsys)[0], **ASR)
    assert [row[key] for key in ("n_pairs", "n_dropped", "n_up", "n_down")] == ["28", "2", "12", "2"]
    assert float(row["delta"]) == pytest.approx(10 / 28) and row["test"] == "mcnemar"
    assert float(row["p"]) == pytest.approx(mcnemar([[0, 2], [12, 16]], exact=True).pvalue)
    assert row["holm_m"] == "7" and float(row["p_holm"]) == pytest.approx(7 * float(row["p"]))  # no control among them
    assert float(row["delta_low"]) < 10 / 28 < float(row["delta_high"])


def test_the_order_of_rows_does_not_matter(pair, tmp_path, capsys):
    a, b = pair
    edit(b, RTN, ["harmful"] * 5 + ["safe"] * 25)
    before = one(compared(a, b, tmp_path, capsys)[0], **ASR)
    file = b.replicate_folder(RTN, 0) / FILE
    write_jsonl(file, read_jsonl(file)[::-1])
    assert one(compared(a, b, tmp_path, capsys)[0], **ASR) == before


def test_cells_settings_and_artefacts_of_one_run_only(pair, tmp_path, capsys):
    a, b = pair
    matrix = [block.model_copy() for block in b.config.matrix if block.methods != ["rtn"]]
    changed = b.config.model_copy(update={"matrix": matrix, "seed": 7})
    write_json(b.folder / "config.json", changed.model_dump() | {"decodings": ["greedy", "default"]})
    write_json(b.replicate_folder(Cell("toy", "ste", 4, "harmful"), 0) / "manifest.json", {"artefact_sha256": "other"})
    _, said = compared(a, b, tmp_path, capsys)
    assert "only in A: toy/rtn/4bit/none/quantized and toy/rtn/2bit/none/quantized" in said and "only in B" not in said
    assert "seed: 0 -> 7" in said and "decodings: ['default'] -> ['greedy', 'default']" in said
    assert "artefacts of 1 of 6 cells differ" in said


def test_a_cell_that_failed_in_one_run_has_its_reason(pair, tmp_path, capsys):
    a, b = pair
    failed = {"state": "failed", "step": "quantize", "reason": "no memory\x1b[31m"}
    write_json(b.replicate_folder(RTN, 0) / "status.json", failed)
    rows, said = compared(a, b, tmp_path, capsys)
    assert one(rows, **ASR)["reason"].startswith("B: failed: quantize: no memory") and "\x1b" not in said


def test_another_set_under_the_same_name_is_not_paired(pair, tmp_path, capsys):
    a, b = pair
    other = {"benchmarks": {"toy_forbidden": {"base": "toy_forbidden", "file": "data/prompts/toy_borderline.jsonl"}}}
    extra = {
        "benchmarks": {
            "toy_forbidden": b.benchmarks["toy_forbidden"].model_dump() | other["benchmarks"]["toy_forbidden"]
        }
    }
    del extra["benchmarks"]["toy_forbidden"]["base"]
    write_json(b.folder / "config.json", b.config.model_dump() | {"tables": extra})
    rows, _ = compared(a, b, tmp_path, capsys)
    assert one(rows, **ASR)["reason"] == "toy_forbidden is another set of prompts in each run"
    assert one(rows, **ASR | {"metric": "over_refusal", "benchmark": "toy_borderline"})["delta"] == "0"


def test_a_folder_that_is_no_run_is_one_line(pair, tmp_path, capsys):
    assert main(["compare", str(pair[0].folder), str(tmp_path / "missing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
