"""The plan: hours from recorded jobs, what judges are asked, disk, and both papers' experiments offline."""

import csv
import subprocess
import sys

import pytest

from bitsafe.cells import Cell
from bitsafe.config import Config, read_config
from bitsafe.errors import UserError
from bitsafe.files import write_json
from bitsafe.matrix.plan import cost, judge_table, part_table
from bitsafe.matrix.progress import jobs
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.resources.bill import asked_over_network, disk_gb, hours
from bitsafe.resources.recorded import Calibration, every_job, read_timing, runs_in
from bitsafe.resources.requests import Requests

PAPERS = ("opensafetymini", "qresafe", "qresafe_decoding", "qresafe_training")


def experiment(name: str, **over) -> Run:
    config = read_config([ROOT / "config.yaml", ROOT / f"experiments/{name}.yaml"])
    return Run(config.model_copy(update=over))


def finished(tmp_path, name: str, seconds, **config) -> Run:
    """A run with a timing of each of its jobs. seconds: of the estimate of a job."""
    run = Run(Config(results=str(tmp_path), run=name, **config))
    run.save()
    estimates = Requests(run).estimates
    for step, cell, judge in every_job(run):
        nouns = [cell.model, cell.method, f"{cell.bits}bit", cell.risk]
        nouns += [] if step == "quantize" else [cell.stage]
        file = run.folder / "timings" / step / f"{'.'.join(nouns + ([judge] if judge else []))}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w") as stream:
            writer = csv.writer(stream, delimiter="\t")
            writer.writerow(["s", "cpu_time", "max_rss"])
            writer.writerow([seconds(estimates.of(step, cell, judge).seconds), 1, 100])
    return run


def total(found: dict) -> float:
    return sum(line.core for line in found.values())


def test_recorded_jobs_of_the_same_method_go_before_those_of_the_step(tmp_path):
    matrix = [{"methods": ["rtn"], "bits": [4]}]
    finished(tmp_path, "slow", lambda estimate: 3 * estimate, matrix=matrix)
    run = Run(Config(results=str(tmp_path), matrix=[*matrix, {"methods": ["gptq"], "bits": [4], "risks": ["benign"]}]))
    calibration, requests = Calibration(list(runs_in(tmp_path))), Requests(run)
    found = {job: calibration.factor(requests.estimates, *job) for job in every_job(run)}
    assert found["quantize", Cell("toy", "rtn", 4), None] == (pytest.approx(3), "method")
    assert found["quantize", Cell("toy", "gptq", 4, "benign"), None] == (pytest.approx(3), "step")
    assert found["generate", Cell("toy", "gptq", 4, "benign"), None] == (pytest.approx(3), "method")
    plain, slow = (hours(requests, every_job(run), each) for each in (Calibration([]), calibration))
    assert total(slow) == pytest.approx(3 * total(plain))
    assert plain["judge"].rests_on == {"table": 6} and slow["judge"].rests_on == {"method": 6}


def test_a_job_that_took_its_artefacts_from_elsewhere_says_nothing_of_their_cost(tmp_path):
    """Manifests say 40 seconds each; the job that made them took 130, the one that linked them 2."""
    cell = Cell("toy", "rtn", 4)
    for name, took in (("made", 130), ("linked", 2)):
        run = finished(tmp_path, name, lambda estimate, took=took: took, matrix=[{"methods": ["rtn"], "bits": [4]}])
        for k in range(run.replicates("toy")):
            write_json(run.replicate_folder(cell, k) / "manifest.json", {"seconds": 40})
        timing = read_timing(run, "quantize", cell, None)
        assert timing and timing.seconds == 130 if name == "made" else timing is None
        assert read_timing(run, "generate", cell, None).seconds == took


def test_half_of_the_recorded_jobs_take_longer_than_the_factor(tmp_path):
    for name, factor in (("a", 1.0), ("b", 2.0), ("c", 10.0)):
        finished(tmp_path, name, lambda estimate, factor=factor: factor * estimate)
    run = Run(Config(results=str(tmp_path)))
    found = Calibration(list(runs_in(tmp_path))).factor(
        Requests(run).estimates, "generate", Cell("toy", "full", 16), None
    )
    assert found == (pytest.approx(2), "method")


def test_a_judge_s_time_says_nothing_of_another_judge(tmp_path):
    finished(tmp_path, "keyword", lambda estimate: 9 * estimate, judges=["keyword"])
    run = Run(Config(results=str(tmp_path), judges=["keyword", "refusal"]))
    calibration, estimates = Calibration(list(runs_in(tmp_path))), Requests(run).estimates
    assert calibration.factor(estimates, "judge", Cell("toy", "rtn", 4), "keyword")[1] == "method"
    assert calibration.factor(estimates, "judge", Cell("toy", "rtn", 4), "refusal") == (1.0, "table")


def test_a_torn_or_missing_timing_is_none(tmp_path):
    run = finished(tmp_path, "a", lambda estimate: estimate)
    cell = Cell("toy", "rtn", 4)
    assert read_timing(run, "generate", cell, None).rss_mb == 100
    file = run.folder / "timings/generate/toy.rtn.4bit.none.quantized.tsv"
    file.write_text("s\tcpu_time\tmax_rss\n1.0\t1.0\t-\n")
    assert read_timing(run, "generate", cell, None) is None
    file.unlink()
    assert read_timing(run, "generate", cell, None) is None


PAID = {
    "harm": {
        "base": "llm_harm",
        "model": "m",
        "endpoint": {"price": {"input": 10, "output": 100}, "dollar_limit": 1},
    },
    "pairs": {
        "base": "alpaca_pairwise",
        "model": "m",
        "kinds": ["harmful"],
        "endpoint": {"price": {"input": 0, "output": 0}},
    },
}


def test_what_paid_judges_are_asked_by_hand():
    config = {
        "models": ["toy"],
        "replicates": 1,
        "benchmarks": ["toy_forbidden", "toy_benign"],
        "judges": ["harm", "pairs"],
    }
    run = Run(Config(matrix=[{"methods": ["rtn"], "bits": [4]}], tables={"judges": PAID}, **config))
    asked = asked_over_network(run, list(every_job(run)))
    # two cells, 300 prompts, and full precision once more for the noise floor; 600 + 60 + 0.6 · 40 tokens in, 120 out
    assert asked["harm"].requests == 900
    assert asked["harm"].tokens_in == pytest.approx(900 * (600 + 60 + 24))
    assert asked["harm"].dollars == pytest.approx((900 * 684 * 10 + 900 * 120 * 100) / 1e6)
    assert asked["pairs"].requests == 600  # one cell against full precision, in both orders
    assert "about 17 dollars without limits, and harm would stop at the limit" in judge_table(asked)


def test_disk_by_hand():
    run = Run(Config(matrix=[{"methods": ["rtn"], "bits": [4]}], replicates=2))
    found = disk_gb(Requests(run))
    embeddings = 768 * 128 * 2  # at most: the row does not say that the head is tied
    assert found["models"] == 0  # the toy ships
    assert found["artefacts"] == pytest.approx(2 * (2 * embeddings + (754816 - embeddings) * 4.5 / 8) / 1e9)


def test_the_published_checkpoints_and_the_full_grid():
    run = experiment("opensafetymini")
    published, grid = run.cells_of_part("published"), run.cells_of_part("grid")
    assert (len(published), len(grid), len(published - grid)) == (29, 66, 0)
    counts = {
        method: sum(cell.method == method for cell in published) for method in ("awq", "quik", "quip_sharp", "aqlm")
    }
    assert counts == {"awq": 5, "quik": 5, "quip_sharp": 10, "aqlm": 4}
    assert not any(cell.model == "qwen2.5-1.5b" and cell.method == "aqlm" for cell in published)
    assert {(cell.method, cell.bits) for cell in published if cell.method in ("ste", "qlora")} == {
        ("ste", 4),
        ("ste", 3),
        ("ste", 2),
        ("qlora", 3),
        ("qlora", 2),
    }
    assert [str(cell) for cell in run.cells if "abliterated" in cell.model] == [
        "llama-3.1-8b-abliterated/full/16bit/none/quantized"
    ]


def test_a_part_alone_is_its_cells_and_full_precision():
    run = experiment("opensafetymini", parts=["published"])
    assert len(run.cells) == 29 + 6
    assert "published  29     29\n" in part_table(run, list(jobs(run)))
    with pytest.raises(UserError, match=r"parts: no block .* 'publishd'; did you mean 'published'"):
        _ = experiment("opensafetymini", parts=["publishd"]).cells


def test_a_block_names_models_of_the_run():
    with pytest.raises(UserError, match=r"matrix\[0\].models: 'toi' is no model of the run; did you mean 'toy'"):
        _ = Run(Config(matrix=[{"methods": ["rtn"], "bits": [4], "models": ["toi"]}])).cells


@pytest.mark.parametrize("name", PAPERS)
def test_both_papers_are_planned_without_network(name):
    run = experiment(name)
    told = cost(run, list(jobs(run)))
    assert "GPU hours" in told and "Disk, once all is done" in told and "Assumed:" in told
    for row in (run.model(model) for model in run.config.models):
        assert row.architecture is not None
        assert all(
            len(source["revision"]) == 40 and not set(source["revision"]) - set("0123456789abcdef")
            for source in row.sources
        )
    for benchmark in run.benchmarks.values():
        assert benchmark.file or benchmark.rows, benchmark


def test_planning_loads_nothing_heavy():
    code = (
        "import sys; from pathlib import Path; from bitsafe.matrix.plan import show_plan; "
        "show_plan([Path('config.yaml'), Path('experiments/qresafe.yaml')]); "
        "print([name for name in ('torch', 'openai', 'scipy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
