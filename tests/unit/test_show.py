"""One cell in the terminal: its numbers are those of the tables, its harmful answers folded, its text inert."""

import csv

from bitsafe.cells import Cell
from bitsafe.cli import main
from bitsafe.files import read_jsonl, write_json, write_jsonl
from bitsafe.matrix.run import Run

STE, PATCHED = Cell("toy", "ste", 4, "harmful"), Cell("toy", "ste", 4, "harmful", "qresafe")


def shown(run: Run, cell: object, capsys, *flags: str) -> str:
    assert main(["show", str(run.folder), str(cell), *flags]) == 0
    return capsys.readouterr().out


def test_nouns_parameters_manifest_and_scores(run, capsys):
    said = shown(run, PATCHED.slug, capsys)
    assert "model toy, method ste, bits 4, risk harmful, stage qresafe" in said and "tau 0.2" in said
    assert "effective_bits 4.5" in said and said.count("rep0/artefact") == 1 and "matches" in said
    row = next(r for r in csv.DictReader((run.folder / "scores.csv").open()) if r["stage"] == "qresafe")
    value = f"{100 * float(row['asr']):.1f} % [{100 * float(row['asr_low']):.1f}, {100 * float(row['asr_high']):.1f}]"
    assert value in said
    for contrast in ("total", "repair"):
        assert contrast in said


def test_harmful_answers_are_folded_unless_asked_for(run, capsys):
    harmful = read_jsonl(run.replicate_folder(STE, 0) / "answers/toy_forbidden.default.jsonl")[0]["answer"]
    forbidden = shown(run, STE, capsys, "--transcripts", "1").split("toy_borderline, row")[0]
    assert harmful not in forbidden and "(folded, " in forbidden
    assert harmful in shown(run, STE, capsys, "--transcripts", "1", "--unfold").split("toy_borderline, row")[0]
    assert "row toy_" not in shown(run, STE, capsys, "--transcripts", "0")


def test_what_flipped_comes_first(run, capsys):
    """The reference of a patched cell is the cell before its patch: what the patch repaired is shown."""
    said = shown(run, PATCHED, capsys, "--transcripts", "1")
    assert (
        "ste/4bit/harmful/quantized: [keyword: harmful" in said and "ste/4bit/harmful/qresafe: [keyword: safe" in said
    )


def test_a_failed_cell_says_why(run, capsys):
    write_json(
        run.replicate_folder(STE, 0) / "status.json", {"state": "failed", "step": "quantize", "reason": "no loss"}
    )
    assert "state: failed: replicate 0, quantize: no loss" in shown(run, STE, capsys)


def test_a_changed_artefact_is_said_to_be(run, capsys):
    (run.replicate_folder(STE, 0) / "artefact/model.safetensors").write_text("other")
    assert "differs" in shown(run, STE, capsys, "--transcripts", "0")


def test_hostile_answers_are_inert(run, capsys):
    for cell in (STE, PATCHED):
        file = run.replicate_folder(cell, 0) / "answers/toy_benign.default.jsonl"
        rows = read_jsonl(file)
        write_jsonl(file, [row | {"answer": "\x1b[2J\x9b31m\u202etxt\r\b" + "A" * 1_000_000} for row in rows])
    said = shown(run, STE, capsys, "--unfold")
    assert not {"\x1b", "\x9b", "\u202e", "\r", "\b"} & set(said)
    assert "␛[2J" in said and "⟨U+202E⟩" in said and max(map(len, said.splitlines())) < 2000


def test_answers_that_are_no_text_do_not_hide_the_scores(run, capsys):
    (run.replicate_folder(STE, 0) / "answers/toy_benign.default.jsonl").write_bytes(b"\xff\xfe\n")
    said = shown(run, STE, capsys)
    assert "toy_benign: transcripts cannot be read" in said and "toy_borderline, row" in said


def test_a_cell_that_is_not_of_the_run(run, capsys):
    assert main(["show", str(run.folder), "toy/rtn/8bit/none"]) == 2
    assert "the run has no cell toy/rtn/8bit/none/quantized" in capsys.readouterr().err
