"""Distance from full precision: torch's own divergence, hand-worked sums, and a cell measured end to end."""

import math
from pathlib import Path
from types import SimpleNamespace

import judge_run
import numpy as np
import pytest
import tiny_model
import torch
from stats_run import table

from bitsafe.distance import step
from bitsafe.distance.measures import Text, kl_from, known_of, log_probabilities, measured
from bitsafe.distance.rows import columns, distance_rows, ratio_interval
from bitsafe.distance.texts import fixed_texts, read_texts, write_texts
from bitsafe.errors import UserError
from bitsafe.files import read_jsonl
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run
from bitsafe.stats.csvfile import write_table


def pair(places: int = 5, vocabulary: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    p, q = torch.randn(2, places, vocabulary) * 2
    return p.log_softmax(-1), q.log_softmax(-1)


def test_with_the_whole_vocabulary_it_is_torchs_divergence() -> None:
    p, q = pair()
    wanted = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(kl_from(known_of(p, 40), q).float(), wanted, atol=1e-5)
    assert torch.allclose(kl_from(known_of(p, 999), q).float(), wanted, atol=1e-5)
    assert kl_from(known_of(p, 40), p).abs().max() < 1e-6


def test_with_fewer_tokens_it_is_that_of_the_merged_outcomes_and_never_more() -> None:
    p, q = pair()
    whole = kl_from(known_of(p, 40), q)
    for top in (1, 3, 10, 39):
        known = known_of(p, top)
        rest = [1 - part.exp().gather(1, known.tokens).sum(-1, keepdim=True) for part in (p, q)]
        p_merged, q_merged = (
            torch.cat([part.exp().gather(1, known.tokens), left], 1) for part, left in zip((p, q), rest)
        )
        wanted = torch.nn.functional.kl_div(q_merged.log(), p_merged, reduction="none").sum(-1)
        found = kl_from(known, q)
        assert torch.allclose(found.float(), wanted, atol=1e-4) and (found <= whole + 1e-5).all()


def test_a_certain_model_has_no_rest_to_speak_of() -> None:
    p = torch.tensor([[0.0, -200.0, -200.0]])
    q = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert float(kl_from(known_of(p, 1), q)) == pytest.approx(math.log(2))
    assert math.isfinite(float(kl_from(known_of(q, 1), p)))


def test_sums_over_a_text_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.7, 0.1]]).log()
    q = torch.tensor([[0.5, 0.25, 0.25], [0.6, 0.3, 0.1]]).log()
    text = Text("r", "c", [9, 9, 1, 0], 2)  # the answer is token 1, then token 0
    row = measured(known_of(p, 2), q, text)
    assert row["kl"] == pytest.approx(0.2 * math.log(0.2 / 0.6) + 0.7 * math.log(0.7 / 0.3))
    assert row["nll"] == pytest.approx(-math.log(0.25) - math.log(0.6))
    assert (row["agree"], row["n_tokens"], row["beyond"]) == (1, 2, pytest.approx(0.35))


def test_probabilities_are_those_of_the_whole_text() -> None:
    model, text = tiny_model.model(), Text("r", "c", [2, 70, 71, 4, 3, 80, 81, 4], 5)
    with torch.inference_mode():
        whole = model(torch.tensor([text.ids])).logits[0].log_softmax(-1)
    assert torch.allclose(log_probabilities(model, text), whole[4:7], atol=1e-5)


def pairs(*answers: str) -> list[tuple[dict, dict]]:
    rows = [{"id": f"p{n}", "cluster": f"c{n}", "messages": judge_run.user("Hi")} for n in range(len(answers))]
    return [(row, {"sample": 0, "answer": text, "finish": "stop"}) for row, text in zip(rows, answers)]


def test_texts_are_drawn_up_to_a_number_of_tokens_and_kept_whole(tmp_path: Path) -> None:
    tokenizer = tiny_model.tokenizer()
    texts = fixed_texts(tokenizer, pairs("abc", "", "defg", "hi"), {}, 8)
    assert sum(len(text.ids) - text.start for text in texts) == 8 and len(texts) in (2, 3)
    assert tokenizer.decode(texts[0].ids).startswith("<|user|>Hi<|end|><|assistant|>")
    assert texts[0].ids[-1] == tokenizer.eos_token_id and "p1" not in [text.name for text in texts]
    everything = fixed_texts(tokenizer, pairs("abc", "", "defg", "hi"), {}, 99)
    assert sum(len(text.ids) - text.start for text in everything) == 4 + 5 + 3
    known = [known_of(log_probabilities(tiny_model.model(), text), 7) for text in texts]
    write_texts(tmp_path / "t.safetensors", texts, known)
    for (text, one), *wanted in zip(read_texts(tmp_path / "t.safetensors"), texts, known, strict=True):
        assert text == wanted[0] and torch.equal(one.tokens, wanted[1].tokens)
        assert torch.equal(one.log_p, wanted[1].log_p)


def test_no_answers_leave_no_texts_and_a_torn_file_is_named(tmp_path: Path) -> None:
    write_texts(tmp_path / "t.safetensors", [], [])
    assert list(read_texts(tmp_path / "t.safetensors")) == []
    (tmp_path / "t.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"cannot be read .* delete distance.json of full precision"):
        list(read_texts(tmp_path / "t.safetensors"))


def text(cluster: str, n: int, kl: float, agree: int, nll: float) -> dict:
    return {"cluster": cluster, "n_tokens": n, "kl": kl, "agree": agree, "nll": nll, "beyond": 0.0}


def test_means_are_over_tokens_and_intervals_over_clusters() -> None:
    row = columns([text("a", 1, 0.5, 0, math.log(2)), text("b", 3, 0.3, 3, 3 * math.log(4))], 0.95)
    assert (row["kl"], row["top1_agreement"]) == (pytest.approx(0.2), 0.75)
    assert row["perplexity"] == pytest.approx(math.exp((math.log(2) + 3 * math.log(4)) / 4))
    assert row["kl_low"] == pytest.approx(0.1) and row["kl_high"] == pytest.approx(0.5), "two clusters: either alone"
    sums, sizes = np.array([1.0, 1.0]), np.array([2.0, 2.0])
    assert np.isnan(ratio_interval(sums, sizes, np.array(["a", "a"]), 0.95)).all()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    made = judge_run.make_run(tmp_path, {"base": "keyword"}, [("Hi", "abcdef"), ("Ho", "ghi"), ("Hu", "jk")])
    made = Run(
        made.config.model_copy(update={"distance": made.config.distance.model_copy(update={"tokens": 10, "top": 300})})
    )

    def load(artefact: Path, dtype: str) -> tuple:
        model = tiny_model.model()
        if "/rtn/" in str(artefact):
            torch.manual_seed(1)
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(0.05 * torch.randn_like(weight))
        return model, tiny_model.tokenizer()

    monkeypatch.setattr(step, "load_dense", load)
    return made


def test_a_cell_is_measured_on_the_answers_of_full_precision(run: Run) -> None:
    for cell in run.cells:
        step.distance(run, cell)
    write_table(run.folder, "distance", [{"run": run.name, **row} for row in distance_rows(run)])
    rows = table(SimpleNamespace(folder=run.folder), "distance")
    assert [(row["method"], row["prompts"], row["benchmark"]) for row in rows] == [
        (method, "harmful", name) for method in ("full", "rtn") for name in ("b", "")
    ]
    full, _, rtn, together = rows
    assert (float(full["kl"]), float(full["top1_agreement"])) == (pytest.approx(0, abs=1e-6), 1)
    assert full["perplexity"] == full["perplexity_full"] == rtn["perplexity_full"]
    assert float(rtn["kl"]) > 0.001 and int(rtn["n_tokens"]) == 10 and float(rtn["beyond"]) < 1e-5
    assert rtn["kl"] == together["kl"] and rtn["reason"] == ""

    own, other = step.load_dense(Path("x"), "")[0], step.load_dense(Path("x/rtn/x"), "")[0]
    texts = [one for one, _ in read_texts(run.replicate_folder(run.cells[0], 0) / "distance/b.safetensors")]
    kl = nll = agree = n = 0
    for one in texts:
        with torch.inference_mode():
            p, q = (m(torch.tensor([one.ids])).logits[0, one.start - 1 : -1].log_softmax(-1) for m in (own, other))
        kl += float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum"))
        nll += float(torch.nn.functional.cross_entropy(q, torch.tensor(one.ids[one.start :]), reduction="sum"))
        agree += int((p.argmax(-1) == q.argmax(-1)).sum())
        n += len(one.ids) - one.start
    assert float(rtn["kl"]) == pytest.approx(kl / n, rel=1e-4)
    assert float(rtn["perplexity"]) == pytest.approx(math.exp(nll / n), rel=1e-4)
    assert float(rtn["top1_agreement"]) == pytest.approx(agree / n)


def test_a_cell_that_was_not_measured_is_blank_with_its_reason(run: Run) -> None:
    assert {row["reason"] for row in distance_rows(run)} == {"not run"}
    step.distance(run, run.cells[0])
    assert [row.get("reason", "") for row in distance_rows(run)] == ["", "", "not run", "not run"]
    assert read_jsonl(run.replicate_folder(run.cells[0], 0) / "distance/b.jsonl")[0]["n_tokens"]
    other = Run(run.config.model_copy(update={"distance": run.config.distance.model_copy(update={"tokens": 11})}))
    assert recipe("distance", run, run.cells[0]) != recipe("distance", other, run.cells[0])
    assert recipe("generate", run, run.cells[0]) == recipe("generate", other, run.cells[0])
