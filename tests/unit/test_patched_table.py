"""What a patch did beside what it cost: the table's rows, its Markdown, and what a page shows of it."""

import csv

import pytest
from stats_run import PATCHED, judged, one, whole_run
from sweep_run import STAGES, STE, sweep_run

from bitsafe.cells import Cell
from bitsafe.files import read_json, write_json
from bitsafe.report.html import render
from bitsafe.report.patched.table import COLUMNS, markdown, patch_rows, view, write_patches
from bitsafe.report.read import Results
from bitsafe.stats.assemble import assemble


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield sweep_run(tmp_path_factory.mktemp("results"), monkeypatch)


@pytest.fixture
def rows(run):
    return patch_rows(Results.read(run.folder))


def test_cells_csv_has_what_a_patch_took(tmp_path):
    """Times and FLOPs as means over the replicates, memory as the largest; nothing of it for a quantized cell."""
    run = whole_run(tmp_path)
    run.copies = 2
    judged(run, PATCHED, "forbidden", "SSSSSSSuuu", "SSSSSSSuuu", categories="aaaaabbbbb")
    for replicate, facts in enumerate(
        [
            {"seconds": 10.0, "flops": 2e9, "peak_memory_mb": 500.0, "pairs": {"refuse_comply": 4, "identical": 9}},
            {"seconds": 20.0, "flops": 4e9, "peak_memory_mb": 400.0, "pairs": {"refuse_comply": 5, "both_comply": 1}},
        ]
    ):
        file = run.folder / PATCHED.path / f"rep{replicate}" / "manifest.json"
        write_json(file, read_json(file) | {"facts": facts})
    assemble(run)
    row = one(run, "cells", PATCHED)
    assert [float(row[name]) for name in ("patch_seconds", "flops", "peak_memory_mb")] == [15.0, 3e9, 500.0]
    assert float(row["n_preferences"]) == 5.0 and row["added_memory_mb"] == row["cpu_seconds"] == ""
    assert one(run, "cells", PATCHED.quantized)["patch_seconds"] == ""


def test_a_row_a_patch_and_judge(run, rows):
    assert len(rows) == len(STAGES) * 2 and {row["judge"] for row in rows} == {"keyword", "reference"}
    assert all(set(row) == set(COLUMNS) for row in rows)
    row = next(row for row in rows if row["patch"] == "qresafe" and row["judge"] == "reference")
    results = Results.read(run.folder)
    panel = results.leading[0]
    before, after = panel.at(STE), panel.at(Cell("toy", "ste", 4, "harmful", "qresafe"))
    assert row["asr_before"] == pytest.approx(before.score["asr"]) and row["asr"] == after.score["asr"]
    assert row["asr_delta"] == pytest.approx(row["asr"] - row["asr_before"])
    assert row["asr_delta_low"] < row["asr_delta"] < row["asr_delta_high"]
    for metric in ("over_refusal", "utility"):
        assert row[metric] == pytest.approx(row[f"{metric}_before"] + row[f"{metric}_delta"])
        assert row[f"{metric}_before"] == pytest.approx(before.beside[metric]["value"])
    assert (row["patch_seconds"], row["cpu_seconds"], row["flops"]) == (11.0, 8.0, 2e11)
    assert (row["peak_memory_mb"], row["added_memory_mb"], row["n_preferences"]) == (520.0, 90.0, 63.0)
    assert row["effective_bits"] == row["effective_bits_before"] == 4.5


def test_texts_of_a_row():
    row = dict.fromkeys(COLUMNS) | {
        **{"model": "toy", "method": "ste", "bits": 4, "risk": "harmful", "patch": "qresafe", "reason": ""},
        **{"asr_before": 0.5, "asr": 0.1, "asr_low": 0.05, "asr_high": 0.2, "asr_min": 0.0, "asr_max": 0.2},
        **{"asr_delta": -0.4, "asr_delta_low": -0.5, "asr_delta_high": -0.2, "utility": 0.9, "utility_delta": -0.05},
        **{"effective_bits_before": 4.31, "effective_bits": 5.5, "patch_seconds": 12.34, "flops": 2.5e11},
    }
    made = view([row])
    shown = dict(zip(made["headings"], made["rows"][0]["texts"], strict=True))
    assert made["rows"][0]["label"] == "ste 4-bit, risk III, after qresafe"
    assert shown == {
        **{"ASR, before → after": "50.0 → 10.0 % [5.0, 20.0]", "replicates": "0.0 to 20.0"},
        **{"utility (change)": "90.0 % (−5.0)", "effective bits": "4.31 → 5.50"},
        **{"seconds": "12.3", "FLOPs": "2.50e+11"},
    }


def test_files(run, rows):
    write_patches(run)
    with (run.folder / "tables" / "patches.csv").open(newline="", encoding="utf-8") as stream:
        read = list(csv.DictReader(stream))
    assert list(read[0]) == COLUMNS and len(read) == len(rows)
    assert [float(row["asr"]) for row in read] == pytest.approx([row["asr"] for row in rows])
    text = (run.folder / "tables" / "patches.md").read_text(encoding="utf-8")
    assert text.count("\n| ste 4-bit, risk III, after ") == len(rows)
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1, "every line of a table has as many cells"


def test_a_cell_without_numbers_has_its_reason(run, rows):
    row = rows[0] | {name: None for name in COLUMNS if name.startswith(("asr", "utility", "over"))}
    text = markdown([row | {"reason": "not | run"}])
    assert "not measured: not \\| run" in text
    assert markdown([]).rstrip().endswith("This run has no patches.")


def test_the_page_shows_the_table(run):
    page = render(run, Results.read(run.folder))
    assert "Patches and their cost" in page and "2.00e+11" in page and 'href="figures/ablation_tau.png"' in page
