"""What jobs ask for: the formulas by hand, against recorded runs, and what the user says instead."""

import csv
import inspect
import json
import statistics
from types import SimpleNamespace

import pytest

from bitsafe.cells import Cell
from bitsafe.config import Config, read_config
from bitsafe.errors import UserError
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.resources.architecture import architecture, read_architecture
from bitsafe.resources.coefficients import Device, Row, coefficients
from bitsafe.resources.formulas import artefact_bytes, judge_seconds, memory, model_seconds
from bitsafe.resources.requests import Requests, rule_resources
from bitsafe.resources.rows import Architecture
from bitsafe.resources.work import Work

SIZE = Architecture(parameters=1_000_000_000, layers=10, hidden_size=1000, kv_width=500, vocabulary=50_000)
SEVEN = {"parameters": 7_000_000_000, "layers": 32, "hidden_size": 4096, "kv_width": 4096, "vocabulary": 32_000}


def run_of(model: str = "toy", matrix: list | None = None, **config) -> Run:
    blocks = matrix or [{"methods": ["rtn"], "bits": [4]}]
    return Run(Config(**{"models": [model], "matrix": blocks, **config}))


def seven(**row) -> dict:
    """A model of 7 billion weights that is nowhere here, on the toy's data."""
    return {"models": {"seven": {"base": "toy", "path": None, "architecture": SEVEN, "replicates": 1, **row}}}


def test_memory_by_hand():
    row = Row(mb=100, seconds=0, loaded=3, worked=4, activations=2, logits=8)
    work = Work(batch=100, cached=1000)
    # 4 GB of weights; 100 tokens × (2 · 10 · 1000 + 8 · 50,000) = 42 MB; 1000 · 2 · 10 · 500 · 4 bytes = 40 MB
    assert memory(row, SIZE, work, on_gpu=False) == (100 + 4000 + 42 + 40, 0)
    # bfloat16 keys and values take half; the machine keeps what loading takes
    assert memory(row, SIZE, work, on_gpu=True) == (100 + 3000, 4000 + 42 + 20)
    assert memory(row.model_copy(update={"loaded": 9}), SIZE, work, on_gpu=False)[0] == 100 + 9000


def test_seconds_by_hand():
    device = Device(flops=1e12, trained_flops=1e11, bandwidth=1e10, step=0.01, read=1e9)
    core = Device(flops=1e10, trained_flops=1e10, bandwidth=1e9, step=0.1, read=1e9)
    row = Row(mb=0, seconds=0, loads=3, slow=2)

    def seconds(**work) -> float:
        return model_seconds(row.model_copy(update={"loads": 0}), SIZE, Work(**work), device, core, cores=4)

    assert model_seconds(row, SIZE, Work(), device, core, cores=1) == pytest.approx(3 * 2)  # 2 GB a load
    assert seconds(proved=20) == pytest.approx(20 * 2e9 / 4e10)
    assert seconds(read=300, decoded=200) == pytest.approx(500 * 2e9 / 1e12)
    assert seconds(trained=10) == pytest.approx(10 * 2 * 6e9 / 1e11)
    assert seconds(passes=5) == pytest.approx(5 * (10 * 0.01 + 2e9 / 1e10))
    assert judge_seconds(Row(mb=0, seconds=3, answer_s=0.5, request_s=2), 10, 20, side_by_side=8) == 3 + 5 + 5


def test_disk_by_hand():
    # 100 M weights of embeddings in 16 bits, 900 M in 4.5; a tenth of these put back, with their places 4 bytes each
    assert artefact_bytes(SIZE, bits=4) == 2e8 + 9e8 * 4.5 / 8
    assert artefact_bytes(SIZE, bits=4, restored=0.1) == 2e8 + 9e8 * (4.5 / 8 + 0.4)


def recorded() -> list[tuple[dict, Requests, Cell]]:
    with (ROOT / "data/recorded_runs.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    runs = {name: Requests(run_named(name)) for name in {row["run"] for row in rows}}
    cells = [Cell(row["model"], row["method"], int(row["bits"]), row["risk"], row["stage"]) for row in rows]
    return [(row, runs[row["run"]], cell) for row, cell in zip(rows, cells)]


def run_named(name: str) -> Run:
    own = [] if name == "demo" else [ROOT / f"experiments/{name}.yaml"]
    return Run(read_config([ROOT / "config.yaml", *own]))


def test_no_recorded_job_took_more_than_is_asked_for():
    above, beside = [], coefficients().requests.scheduler_mb  # the records are of the step alone
    smollm2: dict[str, list[float]] = {}
    for row, requests, cell in recorded():
        asked = requests.of(row["step"], cell, row["judge"] or None)
        asked = asked | {"mem_mb": asked["mem_mb"] - beside}
        if row["step"] != "judge":  # its few megabytes say nothing
            above.append(asked["mem_mb"] / float(row["max_rss_mb"]))
            if row["model"] == "smollm2":
                smollm2.setdefault(f"{row['step']} {row['method']}", []).append(above[-1])
        assert asked["mem_mb"] >= float(row["max_rss_mb"]), row
        assert asked["runtime"] * 60 >= float(row["max_seconds"]), row
        assert asked["gpu"] == 0 and asked["cpus_per_task"] == 1, row
    assert len(above) > 100
    print(f"asked over recorded memory: {min(above):.2f} to {max(above):.2f}, median {statistics.median(above):.2f}")
    print("SmolLM2:", {name: [round(one, 2) for one in found] for name, found in smollm2.items()})
    assert statistics.median(above) < 2, "what is asked for is far above what jobs take"


def test_a_model_too_large_for_one_gpu_asks_for_several():
    blocks = [{"methods": ["full"], "bits": [16], "risks": ["benign"]}, {"methods": ["nf4"], "bits": [4]}]
    run = run_of("seven", blocks, tables=seven())
    tuned, rounded = Cell("seven", "full", 16, "benign"), Cell("seven", "nf4", 4)
    gpus = {
        memory: requests_with(run, gpu_memory_mb=memory).of("quantize", tuned)["gpu"] for memory in (40_000, 80_000)
    }
    assert gpus[80_000] >= 2  # 20 bytes a weight are 140 GB
    assert gpus[40_000] >= 4
    assert Requests(run).of("quantize", rounded)["gpu"] == 0  # rounding needs none
    assert Requests(run).of("generate", rounded)["gpu"] == 1
    assert requests_with(run, gpu_from=None).of("generate", rounded)["gpu"] == 0
    assert requests_with(run, gpu_from=8e9).of("generate", rounded)["gpu"] == 0


def requests_with(run: Run, **resources) -> Requests:
    return Requests(Run(Config(**run.config.model_dump() | {"resources": resources})))


def test_what_grows_with_the_work():
    blocks = [{"methods": ["gptq"], "bits": [4], "risks": ["benign"]}]
    models = {
        "narrow": {"base": "toy", "batch_size": 4},
        "longer": {"base": "toy", "settings": {"gptq": {"samples": 9999}}},
    }

    def seconds(step: str, model: str = "toy", **config) -> float:
        run = run_of(model, blocks, tables={"models": models}, **config)
        return Requests(run).estimates.of(step, Cell(model, "gptq", 4, "benign")).seconds

    assert seconds("generate", generate={"samples": 3}) > seconds("generate")
    assert seconds("generate", decodings=["grid49"]) > seconds("generate", decodings=["default"])
    assert seconds("generate", generate={"max_new_tokens": 200}) > seconds("generate")
    assert seconds("generate", replicates=1) < seconds("generate")
    assert seconds("generate", "narrow") > seconds("generate")
    assert seconds("quantize", "longer") > seconds("quantize")


def test_another_attempt_asks_for_more_up_to_a_limit():
    run = run_of(resources={"mem_mb_limit": 3000, "runtime_limit": 70})
    asked = [Requests(run).of("generate", Cell("toy", "rtn", 4), attempt=n) for n in (1, 2, 3)]
    assert asked[1]["mem_mb"] == 2 * asked[0]["mem_mb"] < 3000 and asked[2]["mem_mb"] == 3000
    assert asked[0]["runtime"] < asked[1]["runtime"] == asked[2]["runtime"] == 70
    assert asked[2]["gpu"] == asked[0]["gpu"] and asked[2]["cpus_per_task"] == 1


def test_the_user_s_word_for_a_step_goes_before_the_model_s():
    tables = {"models": {"mine": {"base": "toy", "resources": {"mem_mb": 7000, "gpu": 2}}}}
    run = run_of("mine", tables=tables, resources={"steps": {"generate": {"mem_mb": 9000}, "judge": {"runtime": 11}}})
    cell = Cell("mine", "rtn", 4)
    assert Requests(run).of("quantize", cell)["mem_mb"] == 7000
    assert Requests(run).of("generate", cell, attempt=2) | {"runtime": 0} == {
        "mem_mb": 18_000,
        "runtime": 0,
        "gpu": 2,
        "cpus_per_task": 1,
    }
    assert Requests(run).of("judge", cell, "keyword")["runtime"] == 11


def test_a_rule_s_resources_are_numbers_where_all_its_jobs_agree():
    found = rule_resources(run_of(), "generate")
    assert found["gpu"] == 0 and found["cpus_per_task"] == 1
    wildcards = SimpleNamespace(model="toy", method="rtn", bits="4", risk="none", stage="quantized")
    assert found["mem_mb"](wildcards, attempt=2) == 2 * found["mem_mb"](wildcards, attempt=1)
    assert list(inspect.signature(found["mem_mb"]).parameters) == ["wildcards", "attempt"]


def test_judges_over_the_network_take_a_slot_and_classifiers_a_gpu():
    judges = ["keyword", "paid", "harmbench"]
    tables = {"judges": {"paid": {"base": "llm_harm", "model": "m"}}}
    found = rule_resources(run_of(judges=judges, tables=tables), "judge")
    of = {
        name: SimpleNamespace(model="toy", method="rtn", bits="4", risk="none", stage="quantized", judge=name)
        for name in judges
    }
    assert [found["judge_slots"](of[name]) for name in judges] == [0, 1, 0]
    assert [found["gpu"](of[name], attempt=1) for name in judges] == [0, 0, 1]
    assert found["mem_mb"](of["harmbench"], attempt=1) == 40_000


def checkpoint(folder, **changed):
    """A checkpoint of 4 · 6 + 8 weights, by hand: eight bytes of length, a JSON header, no data is read."""
    config = {"num_hidden_layers": 2, "hidden_size": 6, "num_attention_heads": 3, "num_key_value_heads": 1}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 4} | changed))
    header = json.dumps({"a": {"shape": [4, 6]}, "b": {"shape": [8]}, "__metadata__": {"format": "pt"}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


def test_a_checkpoint_tells_its_size(tmp_path):
    found = read_architecture(checkpoint(tmp_path / "c"))
    assert found == Architecture(parameters=32, layers=2, hidden_size=6, kv_width=2, vocabulary=4)


def placed(tmp_path, row: dict | None) -> Run:
    """A run whose fetched model lies in its results folder."""
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    checkpoint(folder / "checkpoint")
    model = {"licence": "x", "sources": [{"hub": "a/b", "revision": "0" * 40}], "architecture": row}
    return run_of("mine", results=str(tmp_path), tables={"models": {"mine": model}})


SMALL = {"parameters": 32, "layers": 2, "hidden_size": 6, "kv_width": 2, "vocabulary": 4}


def test_a_row_is_held_against_its_checkpoint(tmp_path):
    assert architecture(placed(tmp_path / "a", None), "mine").parameters == 32
    assert architecture(placed(tmp_path / "b", SMALL), "mine").layers == 2
    assert architecture(placed(tmp_path / "c", SMALL | {"parameters": 8}), "mine").parameters == 8  # a stored tied head
    with pytest.raises(UserError, match=r"mine\.architecture\.layers: 3, but .* says 2: mend the row"):
        architecture(placed(tmp_path / "d", SMALL | {"layers": 3}), "mine")
    with pytest.raises(UserError, match=r"parameters: 30, but .* holds 32"):
        architecture(placed(tmp_path / "e", SMALL | {"parameters": 30}), "mine")


def test_a_model_of_unknown_size_is_told_before_anything_runs():
    tables = {"models": {"mine": {"licence": "x", "sources": [{"hub": "a/b", "revision": "0" * 40}]}}}
    with pytest.raises(UserError, match=r"mine\.architecture: missing, .* copy parameters, layers"):
        rule_resources(run_of("mine", tables=tables), "generate")
