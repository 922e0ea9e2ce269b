"""The utility sets end to end with a random model of two layers: generate, judge, measure the distance, score."""

import json
from pathlib import Path

import pytest
import tiny_model
import torch
from stats_run import table

from bitsafe.config import Config
from bitsafe.distance import step as distance_step
from bitsafe.errors import UserError
from bitsafe.files import read_jsonl, sha256_file, write_json
from bitsafe.generate.engines import transformers as engine
from bitsafe.matrix.progress import jobs
from bitsafe.matrix.run import Run
from bitsafe.steps import generate as generate_step
from bitsafe.steps.judge import judge
from bitsafe.steps.summarise import score

LITTLE = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "grid": {"temperature": [0.5, 1.0]}}
N = 12  # questions with options
QUESTIONS = [
    {"id": n, "category": "Health", "question": f"Is {n} safe?", "options": ["yes", "no", "maybe"][: 2 + n % 2]}
    for n in range(N)
]
FACT = {"question": "Who?", "answer": "Ada", "type": "bridge", "supporting_facts": {"title": ["A"]}}
FACTS = [FACT | {"id": f"h{n}", "context": {"title": ["A"], "sentences": [[f"Ada has {n}."]]}} for n in range(3)]
TALKS = [{"question_id": n, "category": "writing", "turns": [f"Write {n}.", "Shorten."]} for n in (1, 2)]


def row(folder: Path, file: str, task: str, value: object, **more: object) -> dict:
    path = folder / file
    text = json.dumps(value) if path.suffix == ".json" else "".join(json.dumps(one) + "\n" for one in value)
    path.write_text(text)
    pinned = {"url": f"https://x.invalid/{file}", "sha256": sha256_file(path), "format": path.suffix[1:]}
    named = {"licence": "CC0-1.0", "kind": "utility", "task": f"bitsafe.data.tasks.{task}"} if task else {}
    return pinned | named | more


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("data")
    answers = {str(n): {"answer": n % 2} for n in range(N)}
    beside = {"answers": row(folder, "answers.json", "", answers)}
    benchmarks = {
        "questions": row(folder, "test_en.json", "safety_bench", QUESTIONS, asks="choice", beside=beside),
        "facts": row(folder, "facts.jsonl", "hotpot_qa", FACTS, reference=True),
        "talks": row(folder, "talks.jsonl", "mt_bench", TALKS),
        "few": {"base": "toy_forbidden", "limit": 3},
    }
    made = Run(
        Config(
            run="r",
            results=str(folder / "results"),
            data_dir=str(folder),
            replicates=1,
            benchmarks=list(benchmarks),
            judges=["keyword", "choice", "contains"],
            decodings=["default", "little"],
            matrix=[{"methods": ["rtn"], "bits": [4]}],
            generate={"max_new_tokens": 8, "batch_size": 4},
            distance={"tokens": 12},
            tables={"benchmarks": benchmarks, "decodings": {"little": LITTLE}},
        )
    )
    made.save()
    with pytest.MonkeyPatch.context() as patch:
        for module in (engine, distance_step):
            patch.setattr(module, "load_dense", load)
        measure(made)
    return made


def load(artefact: Path, dtype: str) -> tuple:
    model = tiny_model.model(seed=int("/rtn/" in str(artefact)), room=1024)
    with torch.no_grad():
        model.lm_head.weight[tiny_model.tokenizer().convert_tokens_to_ids("A")] += 9 * ("/rtn/" in str(artefact))
    return model, tiny_model.tokenizer()


def measure(run: Run) -> None:
    for cell in run.cells:
        folder = run.replicate_folder(cell, 0)
        made = {"artefact_sha256": str(cell), "source": "s", "effective_bits": 4, "bytes": 1, "seconds": 1.0}
        write_json(folder / "manifest.json", made)
        write_json(folder / "learned_from.json", [])
        generate_step.generate(run, cell)
        distance_step.distance(run, cell)
        for name in run.judges:
            judge(run, cell, name)
    score(run)


def test_each_judge_reads_the_benchmarks_that_it_can(run: Run) -> None:
    pairs = {(row["benchmark"], row["judge"]) for row in table(run, "utility")}
    asked = {("questions", "choice"), ("facts", "contains"), ("facts", "keyword"), ("talks", "keyword")}
    assert pairs == asked, "few is harmful, and has its rows in scores.csv"


def test_the_accuracy_is_that_of_the_letters(run: Run) -> None:
    for cell in run.cells:
        said = read_jsonl(run.replicate_folder(cell, 0) / "answers/questions.default.jsonl")
        right = sum(one["answer"] == "AB"[n % 2] for n, one in enumerate(said))
        rows = [x for x in table(run, "utility") if x["judge"] == "choice" and x["method"] == cell.method]
        found, grid = rows  # of a grid every setting has the same letters
        assert grid["decoding"] == "little_mean" and float(grid["value"]) == float(found["value"])
        assert grid["constant_value"] == found["constant_value"] and grid["equals_constant"] == found["equals_constant"]
        assert float(found["value"]) == pytest.approx(right / N) and found["metric"] == "utility"
        assert float(found["constant_value"]) == 0.5 and found["equals_constant"] in ("True", "False")
        assert (found["flip_rate"] != "") == (cell != cell.baseline)


def test_the_second_turn_has_a_verdict_of_its_own(run: Run) -> None:
    found = read_jsonl(run.replicate_folder(run.cells[0], 0) / "verdicts/keyword/talks.default.jsonl")
    assert [(row["id"], row["cluster"]) for row in found] == [("1", "1"), ("1-2", "1"), ("2", "2"), ("2-2", "2")]


def test_distances_stand_in_a_table_of_their_own(run: Run) -> None:
    rows = table(run, "distance")
    assert [row["benchmark"] for row in rows] == 2 * ["few", "", "facts", "talks", ""]
    full, rtn = rows[:5], rows[5:]
    assert all(float(row["kl"]) == pytest.approx(0, abs=1e-6) and row["top1_agreement"] == "1" for row in full)
    assert all(float(row["kl"]) > 0.1 and row["perplexity_full"] == full[n]["perplexity"] for n, row in enumerate(rtn))


def test_distances_are_jobs_of_the_run_where_they_are_asked_for(run: Run) -> None:
    found = [job for job in jobs(run) if job.step == "distance"]
    assert [job.state for job in found if job.cell.method == "full"] != [] and len(found) == len(run.cells)
    assert {path.name for path in run.distance_files} == {"distance.json"}
    without = Run(run.config.model_copy(update={"distance": type(run.config.distance)()}))
    assert without.distance_files == [] and "distance" not in {job.step for job in jobs(without)}


def test_an_engine_that_tells_no_probabilities_is_refused_before_anything_is_asked(run: Run) -> None:
    config = run.config.model_dump() | {"generate": {"engine": "vllm"}}
    with pytest.raises(UserError, match=r"generate.engine: vllm tells no probabilities of options, as questions asks"):
        _ = Run(Config(**config)).benchmarks


def test_distances_are_measured_on_answers_of_a_decoding_that_is_no_grid(run: Run) -> None:
    asked = run.config.model_dump()
    assert Run(Config(**asked | {"decodings": ["grid49", "greedy"]})).measured_decoding == "greedy"
    with pytest.raises(UserError, match="decodings: grids alone"):
        _ = Run(Config(**asked | {"decodings": ["grid49"]})).measured_decoding
