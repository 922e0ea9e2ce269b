"""The register: each of the seven steps is done only while the files show it."""

import csv
import json

import pytest
from governed_run import index_tables, steps
from huggingface_hub import ModelCard
from report_run import edit

from bitsafe.cells import Cell
from bitsafe.files import read_json, sha256_folder, write_json
from bitsafe.matrix.run import Run
from bitsafe.register.steps import STEPS
from bitsafe.steps.summarise import register

STE = Cell("toy", "ste", 4, "harmful")
PATCHED, RTN = Cell("toy", "ste", 4, "harmful", "qresafe"), Cell("toy", "rtn", 4)


def record(run: Run, cell: Cell) -> dict:
    register(run)
    return json.loads((run.folder / "register" / f"{cell.slug}.json").read_text())


def undone(told: dict) -> dict[str, str]:
    return {name: reason for name, state, reason in steps(told) if state != "done"}


def table(run: Run) -> dict[str, dict]:
    with (run.folder / "register.csv").open(newline="") as stream:
        return {row["slug"]: row for row in csv.DictReader(stream)}


def test_every_quantized_and_patched_cell_has_a_record_and_a_card(run):
    register(run)
    cells = {cell.slug for cell in run.cells if cell.method != "full"}
    assert {path.stem for path in (run.folder / "register").glob("*.json")} == cells == set(table(run))
    assert {path.stem for path in (run.folder / "register").glob("*.md")} == cells
    row = table(run)[PATCHED.slug]
    assert row["steps_done"] == "7" and all(row[step] == "done" for step in STEPS) and row["control"] == "False"
    hashes = [sha256_folder(run.replicate_folder(PATCHED, k) / "artefact") for k in range(3)]
    assert row["artefact_sha256"].split() == hashes


def test_a_patch_is_applied_to_the_patched_cell_only(run):
    assert undone(record(run, STE)) == {
        "patch_applied_and_retested": "this artefact has no patch; patched ones are toy/ste/4bit/harmful/qresafe, "
        "toy/ste/4bit/harmful/dpo, toy/ste/4bit/harmful/random_mask"
    }
    control = table(run)["toy__ste__4bit__harmful__random_mask"]
    assert control["control"] == "True" and control["patch_applied_and_retested"].endswith("a control, not a repair")


def test_the_numbers_are_those_of_the_tables(run):
    told = record(run, PATCHED)
    repaired = next(step for step in told["checklist"] if step["step"] == "patch_applied_and_retested")["evidence"]
    rows = list(csv.DictReader((run.folder / "scores.csv").open()))
    for number in repaired["numbers"]:
        if number["metric"] == "asr":
            row = next(r for r in rows if (r["stage"], r["judge"]) == ("qresafe", number["judge"]))
            assert number["value"] == float(row["asr"]) and number["high"] == float(row["asr_high"])
            assert number["repair"]["delta"] == float(row["delta"]) and number["total"]["against"].startswith(
                "toy/full"
            )
    assert len(repaired["numbers"]) == 8  # asr, over-refusal, utility and its refusals, each by two judges


@pytest.mark.parametrize(
    "file, step, said",
    [
        ("{cell}/rep0/artefact/model.safetensors", "artefact_recorded", "rep0/artefact is not the file"),
        ("{cell}/rep1/manifest.json", "artefact_recorded", "rep1/manifest.json is not the file"),
        ("{quantized}/rep0/artefact/model.safetensors", "quantization", "rep0/artefact is not the file"),
        ("{quantized}/rep2/answers/toy_benign.default.jsonl", "re_evaluation", "toy_benign.default.jsonl is not"),
        ("{cell}/rep0/verdicts/keyword/toy_benign.default.jsonl", "patch_applied_and_retested", "is not the file"),
        ("toy/full/16bit/none/quantized/rep0/answers/toy_benign.default.jsonl", "full_precision_evaluation", "is not"),
    ],
)
def test_a_changed_file_undoes_its_step(run, file, step, said):
    path = run.folder / file.format(cell=PATCHED, quantized=STE)
    path.write_bytes(path.read_bytes() + b"\n")
    assert said in undone(record(run, PATCHED))[step]


def test_verdicts_of_other_answers_undo_the_evaluation(run):
    """Both files are as recorded; only together they show that the judge read something else."""
    from governed_run import listed

    folder = run.replicate_folder(STE, 0)
    file = folder / "verdicts/keyword/toy_forbidden.default.jsonl"
    file.write_text(file.read_text().replace('"answer_sha": "', '"answer_sha": "0', 1))
    index = run.at(STE, "verdicts.keyword.json")
    told = read_json(index)
    told["replicates"][0]["files"] = listed(folder, "verdicts/keyword")
    write_json(index, told)
    index_tables(run)
    assert "is not about the answers at hand" in undone(record(run, STE))["re_evaluation"]


def test_answers_of_another_artefact_undo_the_evaluation(run):
    index = run.at(STE, "answers.json")
    told = read_json(index)
    told["replicates"][1]["artefact_sha256"] = "0" * 64
    write_json(index, told)
    assert "rep1/artefact is not the file that was recorded" in undone(record(run, STE))["re_evaluation"]


def test_calibration_data_has_its_label_provenance_and_hash(run):
    told = record(run, STE)
    review = next(step for step in told["checklist"] if step["step"] == "calibration_data_review")
    evidence = review["evidence"]
    assert (evidence["label"], evidence["data"]["name"]) == ("harmful", "toy_harmful")
    assert (
        evidence["file"]["state"] == "matches" and evidence["origin"]["file"] == "data/conversations/toy_harmful.jsonl"
    )
    none = next(step for step in record(run, RTN)["checklist"] if step["step"] == "calibration_data_review")
    assert none["state"] == "done" and none["evidence"]["label"] == "no calibration data"


def test_calibration_data_that_cannot_be_reviewed(run):
    folder = run.replicate_folder(STE, 0)
    write_json(folder / "learned_from.json", ["other"])
    assert "not those of the manifest" in undone(record(run, STE))["calibration_data_review"]
    (run.folder / "tables/near_duplicates.csv").unlink()
    write_json(run.replicate_folder(RTN, 0) / "learned_from.json", ["one"])
    assert "names no data, and 1 prompts" in undone(record(run, RTN))["calibration_data_review"]


@pytest.mark.parametrize("production, said", [("greedy", "which was not tested"), (None, "is not set")])
def test_a_decoding_that_production_uses_and_nobody_tested(run, production, said):
    release = run.config.release.model_copy(update={"production_decoding": production})
    other = Run(run.config.model_copy(update={"release": release}))
    assert said in undone(record(other, STE))["production_decoding_tested"]


def test_a_failed_cell_stands_in_the_register_with_its_reason(run):
    write_json(run.replicate_folder(STE, 1) / "status.json", {"state": "failed", "step": "quantize", "reason": "=1+1"})
    edit(run, "scores", {"method": "ste", "stage": "quantized"}, asr="", asr_low="", asr_high="", reason="failed")
    index_tables(run)
    register(run)
    row = table(run)[STE.slug]
    assert row["reason"] == "replicate 1, quantize: =1+1" and row["quantization"].startswith("not done: ")
    assert int(row["steps_done"]) < 5


def test_the_judge_is_the_one_that_judged(run):
    index = run.at(STE, "verdicts.keyword.json")
    write_json(index, read_json(index) | {"recipe": "another"})
    index_tables(run)
    judges = {judge["judge"]: judge for judge in record(run, STE)["judges"]}
    assert judges["keyword"]["row"] is None and "another row or version" in judges["keyword"]["reason"]
    assert judges["reference"]["row"]["version"] == 1 and judges["reference"]["verdicts"] == 9


def test_the_card_is_one_that_the_hub_reads(run):
    register(run)
    card = ModelCard.load(run.folder / "register" / f"{PATCHED.slug}.md")
    assert card.data.license == "apache-2.0" and card.data.model_name == PATCHED.slug
    asr = [result for result in card.data.eval_results if result.metric_type == "asr"]
    assert {result.metric_args["judge"] for result in asr} == {"keyword", "reference"}
    assert "| artefact recorded | done |" in card.text and "engineered to be fragile" in card.text
