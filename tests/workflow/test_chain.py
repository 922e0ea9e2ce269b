"""The rules end to end, for real, on one toy organism: what a run leaves, and what happens when things go wrong."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

CELLS = ("full/16bit/none/quantized", "rtn/4bit/none/quantized", "ste/4bit/harmful/quantized")
PATCHED = "ste/4bit/harmful/qresafe"


def table(project, name: str) -> list[dict]:
    with (project.folder / "results/mini" / name).open() as stream:
        return list(csv.DictReader(stream))


def test_every_file_of_the_contract_is_there(finished):
    run = finished.folder / "results/mini"
    for name in ("cells.csv", "scores.csv", "utility.csv", "comparisons.csv", "report.html", "scores_by_replicate.csv"):
        assert (run / name).stat().st_size > 100, name
    for suffix in ("pdf", "png", "csv"):
        assert (run / f"figures/asr_by_risk.{suffix}").exists()
    for cell in (*CELLS, PATCHED):
        folder = run / "toy" / cell / "rep0"
        assert json.loads((folder / "status.json").read_text())["state"] == "done"
        manifest = json.loads((folder / "manifest.json").read_text())
        assert f"toy/{cell}" == manifest["cell"] and manifest["artefact_sha256"] and manifest["effective_bits"]
        for part in ("answers/few_forbidden.default.jsonl", "verdicts/keyword/few_benign.default.jsonl"):
            assert len((folder / part).read_text().splitlines()) == 24


def test_only_full_precision_answers_twice(finished):
    again = list((finished.folder / "results/mini").rglob("answers/*.default_aa.jsonl"))
    assert {path.parts[-6] for path in again} == {"16bit"} and len(again) == 2


def test_the_terminal_says_what_a_person_wants_to_know(finished):
    assert "results/mini/report.html" in finished.log
    assert "qresafe" in finished.log
    assert "Traceback" not in finished.log


def test_logs_and_timings_stand_beside_the_results(finished):
    logs = finished.folder / "results/mini/logs"
    assert {path.name for path in logs.iterdir()} >= {"quantize", "patch", "generate", "judge", "score.log"}
    assert all(path.stat().st_size for path in (logs / "generate").iterdir())
    assert len(list((finished.folder / "results/mini/timings").rglob("*.tsv"))) >= 19


def test_snakemake_makes_a_report_of_its_own(finished):
    done = finished.snakemake("--report", "snakemake.html")
    assert done.returncode == 0, done.stdout
    text = (finished.folder / "snakemake.html").read_text()
    assert all(f'"{category}"' in text for category in ("Report", "Figures", "Tables"))
    assert "What each patch gave back" in text and "asr_by_risk.png" in text
    assert done.stdout.count("Error") == 0


def test_a_second_run_has_nothing_to_do(finished):
    started = time.monotonic()
    done = finished.snakemake()
    assert done.returncode == 0 and "Nothing to be done" in done.stdout
    assert time.monotonic() - started < 60  # the promise, 10 s, is for a quiet machine


def test_a_new_benchmark_generates_only_the_missing_rows(project):
    project.edit("mini.yaml", "[few_forbidden, few_benign]", "[few_forbidden, few_borderline, few_benign]")
    config = project.folder / "results/mini/config.json"
    values = json.loads(config.read_text())
    values["benchmarks"].insert(1, "few_borderline")
    config.write_text(json.dumps(values))
    done = project.bitsafe("generate", "results/mini", "toy/rtn/4bit/none")
    assert done.returncode == 0, done.stdout
    assert "24 answers generated, 48 found in the store" in done.stdout


def test_a_failed_cell_does_not_sink_the_run(project):
    """Its reason stands in status, tables and report; the others are measured; the next run tries it again."""
    project.edit("mini.yaml", "{methods: [rtn], bits: [4]}", "{methods: [rtn, strict], bits: [4]}")
    row = "  methods: {strict: {base: rtn, limits: {4: {logit_error: 0.0000001}}}}\n"
    with (project.folder / "mini.yaml").open("a") as config:
        config.write(row)
    done = project.snakemake()
    assert done.returncode == 1
    status = json.loads((project.folder / "results/mini/toy/strict/4bit/none/quantized/rep0/status.json").read_text())
    assert status["state"] == "failed" and "logit_error" in status["reason"]
    scores = {row["method"]: row for row in table(project, "scores.csv") if row["judge"] == "reference"}
    assert scores["strict"]["asr"] == "" and "logit_error" in scores["strict"]["reason"]
    assert scores["rtn"]["asr"] != ""
    assert "logit_error" in (project.folder / "results/mini/report.html").read_text()
    assert "strict" in done.stdout and "Traceback" not in done.stdout

    project.edit("mini.yaml", row, "  methods: {strict: {base: rtn}}\n")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout[-3000:]
    scores = {row["method"]: row for row in table(project, "scores.csv") if row["judge"] == "reference"}
    assert scores["strict"]["asr"] == scores["rtn"]["asr"]
    assert project.planned() == set()


def begin(project) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "mini.yaml"]
    environment = project.environment()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
    # a shell's background jobs ignore Ctrl-C, and so would what they start
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, cwd=project.folder, env=environment, text=True, preexec_fn=listen, **pipes)


def wait_for(condition, process: subprocess.Popen, seconds: int = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the run ended first:\n{process.stdout.read()[-3000:]}"
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def forget(project, cell: str, *files: str) -> Path:
    """Take away the summary, all that was judged of a cell, and these files of it: what a run would then make again."""
    run = project.folder / "results/mini"
    folder = run / "toy" / cell
    for path in (run / "score.json", run / "report.html", *folder.glob("verdicts.*.json"), folder / "answers.json"):
        path.unlink()
    for file in files:
        (folder / file).unlink()
    return folder


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_a_killed_run_resumes(project, blow):
    """The run is killed while it answers the benchmarks; what it had answered is kept, and nothing is doubled."""
    answers = "rep0/answers/few_forbidden.default.jsonl"
    before = (project.folder / "results/mini/toy/rtn/4bit/none/quantized" / answers).read_text()
    cell = forget(project, "rtn/4bit/none/quantized", "rep0/answers.store.jsonl")
    process = begin(project)
    wait_for((cell / "rep0/answers.store.jsonl").exists, process)
    os.killpg(process.pid, blow)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not (cell / "answers.json").exists()
    done = project.snakemake()
    assert done.returncode == 0, done.stdout[-3000:]
    assert (cell / answers).read_text() == before
    keys = [json.loads(line)["key"] for line in (cell / "rep0/answers.store.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 48, "no row lost, none doubled"
    assert not list(project.folder.rglob(".artefact.*")), "nothing half-written is left"


def test_two_runs_on_one_folder(project):
    """The second says who holds the folder and what to do."""
    forget(project, "ste/4bit/harmful/quantized", "artefacts.json", "rep0/manifest.json")
    first = begin(project)
    lock = project.folder / "results/mini/.lock"
    wait_for(lambda: lock.exists() and str(first.pid) in lock.read_text(), first)
    second = project.snakemake()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    assert second.returncode == 2
    line = next(line for line in second.stdout.splitlines() if line.startswith("bitsafe: "))
    assert "results/mini: in use by another run" in line and str(first.pid) in line and "another `run` name" in line


def one_line(done, code: int, *parts: str) -> None:
    """The only thing said beside Snakemake's own first lines is one line with these parts."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("bitsafe: ")]
    assert done.returncode == code, done.stdout
    assert len(lines) == 1 and all(part in lines[0] for part in parts), done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("replicates: 1", "replicats: 1", ["mini.yaml", "replicats", "did you mean 'replicates'"]),
        ("methods: [rtn]", "methods: [rtm]", ["matrix[0].methods", "did you mean 'rtn'"]),
        (
            "methods: [rtn], bits: [4]",
            "methods: [rtn], bits: [5]",
            ["matrix[0].bits", "rtn does not do 5 bits", "8, 4"],
        ),
        ("run: mini", "run: mini\nmodels: [tow]", ["models", "did you mean 'toy'"]),
        ("run: mini", "run: mini\nresults: /dev/full/x", ["/dev/full", "is a file, not a folder"]),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line(finished, tmp_path, old, new, parts):
    config = tmp_path / "mini.yaml"
    config.write_text((finished.folder / "mini.yaml").read_text().replace(old, new))
    one_line(finished.snakemake(config=str(config)), 2, *parts)


def test_missing_model_and_unreadable_data_are_one_line(project):
    file = project.folder / "data/prompts/toy_forbidden.jsonl"
    text = file.read_text()
    file.write_text(text[:2000])
    one_line(project.bitsafe("generate", "results/mini", "toy/rtn/4bit/none"), 2, "toy_forbidden.jsonl:", "not JSON")
    file.unlink()
    one_line(project.snakemake("-n"), 2, "data/prompts/toy_forbidden.jsonl", "no such file")
    file.write_text(text)
    (project.folder / "data/toy/organism0").rename(project.folder / "data/toy/gone")
    one_line(project.snakemake("-n"), 2, "data/toy/organism0", "models.yaml")


def test_an_unknown_cell_and_a_folder_that_is_no_run_are_one_line(finished):
    one_line(
        finished.bitsafe("quantize", "results/mini", "toy/rtn/3bit/none"), 2, "no cell toy/rtn/3bit/none", "status"
    )
    one_line(finished.bitsafe("status", "data"), 2, "config.json", "not the folder of a run")
    assert "MODEL/METHOD/BITSbit/RISK" in finished.bitsafe("quantize", "results/mini", "toy").stdout


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB; it takes root to make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a small disk here; tests/unit/test_files.py simulates a full one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(finished, small_disk):
    config = json.loads((finished.folder / "results/mini/config.json").read_text()) | {"results": str(small_disk)}
    (small_disk / "mini").mkdir()
    (small_disk / "mini/config.json").write_text(json.dumps(config))
    done = finished.bitsafe("quantize", str(small_disk / "mini"), "toy/rtn/4bit/none")
    one_line(done, 2, "disk is full", "free some space")
    left = [path for path in Path(small_disk).rglob("*") if path.is_file() and path.parent.name != ".writers"]
    assert {path.name for path in left} <= {"config.json", "status.json"}, left


def test_a_read_only_folder_is_one_line(finished, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    config = small_disk.parent / "mini.yaml"
    text = finished.folder.joinpath("mini.yaml").read_text()
    config.write_text(text.replace("run: mini", f"run: mini\nresults: {small_disk}"))
    one_line(finished.snakemake(config=str(config)), 2, str(small_disk), "read-only")
