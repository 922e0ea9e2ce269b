"""What of `make test-gpu` and `make bench-gpu` can be told without a card: the arithmetic, and the same code, small."""

import json
from types import SimpleNamespace

import pytest
import torch
from tests.gpu import bench, counted
from tests.gpu.agreement import arms, said, within_noise
from tests.gpu.answers import Asked, greedy, judged, tie, verdicts
from tests.gpu.points import DEPTHS, estimate, full_steps, measure
from tests.gpu.rows import failed, line, rows_of, scaled
from tests.gpu.seven import SEVEN, SMALL, TOY, bed, conversations

from bitsafe.artefacts.load import load_dense, load_tokenizer
from bitsafe.data.chat import encode_all
from bitsafe.data.prompts import load_benchmark
from bitsafe.generate.prompts import prompt_ids
from bitsafe.matrix.tables import ROOT
from bitsafe.resources.architecture import read_architecture


def point(layers: int, steps: int, seconds: float, gpu_mb: float | None = None) -> dict:
    peaks = {"host_mb": 1000.0 * layers, "gpu_mb": gpu_mb, "reserved_mb": gpu_mb}
    expected = {"seconds": 1.0, "gpu_mb": 2.0, "host_mb": 3.0}
    return {"layers": layers, "steps": steps, "seconds": seconds, **peaks, "said": {}, "estimate": expected}


def test_seconds_by_the_rule_by_hand():
    # 10 + 3 layers + 0.5 layers · steps: 36, 62 and 48 at the depths of qlora; 10 + 96 + 960 of the whole
    points = [point(*at, 10 + 3 * at[0] + 0.5 * at[0] * at[1]) for at in DEPTHS["qlora"]]
    assert [found["seconds"] for found in points] == [26, 42, 38]
    assert scaled(points, "seconds", 32, 60) == pytest.approx(10 + 96 + 960)
    # without the third point steps are as few as they were, and that is said
    assert scaled(points[:2], "seconds", 32, 60) == pytest.approx(10 + 32 * 4)
    assert rows_of("qlora", points[:2], SEVEN)[0]["left_out"] == "58 of 60 steps"
    assert "left_out" not in rows_of("qlora", points, SEVEN)[0]
    assert scaled(points[:1], "seconds", 32, 60) == pytest.approx(26 * 8)


def test_every_method_has_points_that_its_rule_can_be_solved_from():
    for name, depths in DEPTHS.items():
        found = scaled([point(*at, 1.0) for at in depths], "seconds", 32, 60)
        assert found == pytest.approx(1)  # what takes as long at every depth takes as long at full depth
        assert bool(full_steps(name)) == (len(depths) == 3)


def test_memory_of_the_whole_model_is_held_against_what_a_cluster_is_asked_for():
    whole = estimate("quip_sharp", SEVEN, 32, 0)
    each = (whole["host_mb"] - 2000) / 30  # a line that ends at the estimate itself
    points = [point(1, 0, 5.0), point(2, 0, 9.0)]
    for found in points:
        found["host_mb"] = 2000 + each * (found["layers"] - 2)
    row = rows_of("quip_sharp", points, SEVEN)[1]
    assert row["ours"] == pytest.approx(whole["host_mb"]) and row["ratio"] == pytest.approx(1)
    assert row["within_20_percent"] and row["enough"] and row["asked"] > row["ours"]
    points[1]["host_mb"] *= 2
    row = rows_of("quip_sharp", points, SEVEN)[1]
    assert not row["within_20_percent"] and not row["enough"] and "NOT within 20 %, NOT below" in line(row)


def test_a_rate_of_answers_stands_beside_that_of_generate():
    found = point(32, 0, 2.0) | {"said": {"tokens": 1000}, "peer": {"seconds": 4.0, "said": {"tokens": 1000}}}
    row, memory = rows_of("generation", [found], SEVEN)
    assert (row["ours"], row["peer"], row["ratio"], row["unit"]) == (500, 250, 2, "tokens/s")
    assert memory["layers"] == 32 and "rule" not in memory


def test_the_model_has_the_size_that_its_row_says_and_the_data_their_length():
    with bed(SMALL, 2, 2) as made:
        assert read_architecture(made.source).model_dump() == SMALL.architecture(2)
        tokens = [len(found.ids) for found in encode_all(load_tokenizer(TOY), made.conversations)]
    assert SEVEN.architecture(32)["parameters"] == 6_738_415_616  # of Llama-2-7b-chat's row
    assert len(tokens) == SMALL.samples and all(30 <= length <= 60 for length in tokens)
    assert all(400 <= len(found.ids) <= 560 for found in encode_all(load_tokenizer(TOY), conversations(SEVEN)[:5]))


@pytest.mark.parametrize("name", ["generation", "quip_sharp", "qresafe"])
def test_a_point_is_measured_on_a_tiny_model(name):
    steps = {"qresafe": 2}.get(name, 0)
    found = measure(name, SMALL, 1, steps)
    assert found["seconds"] > 0 and found["host_mb"] > 100 and found["gpu_mb"] is None
    assert found["estimate"]["host_mb"] > 100 and found["estimate"]["gpus"] == 0
    if name == "generation":
        assert found["said"] == found["peer"]["said"] == {"answers": SMALL.prompts, "tokens": SMALL.prompts * SMALL.new}
    if name == "qresafe":
        assert found["said"]["pairs_used"] and found["said"]["refreshes"] == 1


def test_a_method_that_fails_costs_no_other_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr(bench, "in_a_process", leaves_a_point)
    assert bench.main(["--small", "gptq", "quip_sharp"]) == 1
    rows = json.loads((tmp_path / "gpu_small.json").read_text())
    assert [row["method"] for row in rows] == ["gptq", *["quip_sharp"] * 2]
    assert rows[0]["failed"] == "No module named 'x' (0 points measured)" and rows[1]["ours"] == 4.0
    assert all({"machine", "versions", "peer_name", "unit", "spread"} <= set(row) for row in rows)
    # measured again, it takes the place of its own rows and of no others
    bench.main(["--small", "quip_sharp"])
    rows = json.loads((tmp_path / "gpu_small.json").read_text())
    assert [row["method"] for row in rows] == ["gptq", *["quip_sharp"] * 2]
    assert "gptq: FAILED: No module" in capsys.readouterr().out


def leaves_a_point(name: str, file, _small: bool) -> str:
    if name == "gptq":
        return "No module named 'x'"
    file.write_text("".join(json.dumps(point(layers, 0, 4.0)) + "\n" for layers in (1, 2)))
    return ""


def test_a_process_that_fails_says_why_in_a_line(tmp_path, capfd):
    assert bench.in_a_process("nothing", tmp_path / "points", True).startswith("ended with 2: bench-gpu: no method")


def test_without_a_card_one_line_says_so(capsys, monkeypatch):
    monkeypatch.setattr(bench, "why_not", lambda: "no card")
    assert bench.main([]) == 0 and capsys.readouterr().out == "bench-gpu: skipped: no card\n"
    assert bench.main(["gptg"]) == 2
    assert line(failed("gptq", "no card")) == "gptq: FAILED: no card"


class Exponentials(torch.nn.Module):
    """As many exponentials as layers, each of which keeps its own result for the backward pass."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers, self.embedding = layers, torch.nn.Embedding(2, counted.SHAPE.hidden)

    def forward(self, input_ids, **_unused):
        hidden = self.embedding(input_ids)
        for _ in range(self.layers):
            hidden = hidden.exp()
        return SimpleNamespace(logits=hidden)


def test_what_a_backward_pass_keeps_by_hand():
    assert counted.a_unit(Exponentials) == 4  # a float32 of each hidden unit of each token


# ---- the toy, as `make test-gpu` asks it


@pytest.fixture(scope="module")
def toy():
    return load_dense(TOY, "float32")


@pytest.fixture(scope="module")
def asked() -> Asked:
    row = {"name": "toy_forbidden", "kind": "harmful", "file": "data/prompts/toy_forbidden.jsonl", "format": "jsonl"}
    return Asked("toy_forbidden", "harmful", load_benchmark(row, ROOT)[:6])


def test_tokens_are_those_of_generate_and_a_tie_is_found_where_answers_part(toy, asked):
    model, tokenizer = toy
    tokens = greedy(model, tokenizer, asked.rows, 10)
    ids = torch.tensor([prompt_ids(tokenizer, asked.rows[:1], {})[0]])
    expected = model.generate(ids, max_new_tokens=10, do_sample=False)[0, ids.shape[1] :].tolist()
    assert tokens[0] == expected[: len(tokens[0])]
    assert [found[0] for found in verdicts(asked, tokens, model, tokenizer)] == ["safe"] * 6

    other = [*expected[:3], (expected[3] + 1) % 768]
    found = tie(model, tokenizer, asked.rows[0], tokens[0], other)
    logits = model(torch.cat([ids, torch.tensor([expected[:3]])], dim=1)).logits[0, -1].detach()
    assert found["place"] == 3
    assert found["margin"] == pytest.approx(float(logits[expected[3]] - logits[other[3]]), rel=1e-4)
    assert tie(model, tokenizer, asked.rows[0], tokens[0], tokens[0][:2])["margin"] is None


def test_a_cell_that_says_something_else_is_outside_of_the_noise(toy, asked, tmp_path):
    own = said(*toy, asked, 10)
    helping = [f"Take {', '.join(row['reference'])}." for row in asked.rows]
    assert [found["verdict"] for found in judged(asked, helping)] == ["harmful"] * 6
    rows = [row | {"id": f"{k}", "cluster": f"{k}"} for k, row in enumerate(asked.rows * 4)]
    twenty = Asked(asked.name, asked.kind, rows)
    same = {"made": own * 4, "again": own * 4, "full": own * 4, "noise": own * 4}
    found = within_noise(twenty, arms(twenty, same, tmp_path))
    assert found["within"] and found["delta"] == 0 and found["mde"] < 0.5
    found = within_noise(twenty, arms(twenty, same | {"again": helping * 4}, tmp_path))
    assert not found["within"] and found["delta"] == 1
