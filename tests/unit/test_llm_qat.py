"""LLM-QAT: what it trains is what it saves, its own conversations, and distillation."""

import pytest
import torch

from bitsafe.artefacts.activations import Activations, Rule, read_activations
from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.checkpoint import read_tensors
from bitsafe.artefacts.load import load_dense, load_model
from bitsafe.data.chat import collate, encode_all
from bitsafe.errors import CellError, UserError
from bitsafe.files import read_json, sha256_folder
from bitsafe.quantizers import llm_qat, rtn
from bitsafe.quantizers.base import QuantizeJob, source_tensors
from bitsafe.quantizers.shared.distillation import distillation, soft_cross_entropy
from bitsafe.quantizers.shared.self_generation import ask, converse, first_tokens, user_opening

IDS = torch.arange(5, 60)[None]
PARAMS = {"samples": 6, "tokens": 8, "distill_steps": 3, "steps": 3, "lr": 1e-3, "batch_size": 8}


def job(source, out, bits=4, rows=(), seed=3, **params):
    out.mkdir(parents=True, exist_ok=True)
    return QuantizeJob(source, out, bits, PARAMS | params, list(rows), seed)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory, chat_tokenizer):
    """A random Qwen2 in bfloat16: biases on Q, K and V."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=320, max_position_embeddings=128, tie_word_embeddings=True, initializer_range=0.1,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    folder = tmp_path_factory.mktemp("tiny") / "qwen"
    model.to(torch.bfloat16).save_pretrained(folder)
    chat_tokenizer.save_pretrained(folder)
    return folder


# --- what is trained is what is saved ---


@pytest.mark.parametrize(("bits", "risk"), [(8, False), (4, True), (3, True), (2, False)])
@pytest.mark.parametrize("source", ["tiny_llama", "tiny_qwen"])
def test_the_model_in_training_is_the_saved_one_to_the_bit(source, bits, risk, request, tmp_path, conversations):
    made = job(request.getfixturevalue(source), tmp_path, bits, conversations if risk else ())
    plan = llm_qat.Plan.of(made.params)
    model, _ = llm_qat.trained_model(made, plan)
    found, in_training = logits(model), model(IDS).logits.detach()
    llm_qat.export(made, model, source_tensors(made), plan)
    saved = logits(load_dense(tmp_path, "float32")[0])
    assert torch.equal(found, saved)
    assert torch.equal(in_training, saved)
    assert not torch.equal(saved, logits(load_model(made.source, "float32")))


def test_norms_and_biases_learn_and_are_saved(tiny_qwen, tmp_path, conversations):
    llm_qat.quantize(job(tiny_qwen, tmp_path, rows=conversations, lr=1e-2))
    before, after = read_tensors(tiny_qwen), read_tensors(tmp_path)
    for name in ("model.norm.weight", "model.layers.0.self_attn.k_proj.bias", "model.layers.1.input_layernorm.weight"):
        assert after[name].dtype == torch.bfloat16
        assert not torch.equal(before[name], after[name])
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_without_learning_it_is_rounded_to_nearest_a_row_at_a_time(tiny_llama, tmp_path):
    llm_qat.quantize(job(tiny_llama, tmp_path / "ours", lr=0.0, activation_bits=16, cache_bits=16))
    (tmp_path / "rtn").mkdir()
    rtn.quantize(QuantizeJob(tiny_llama, tmp_path / "rtn", 4, {"group_size": -1, "symmetric": True}))
    (tmp_path / "ours/activations.json").unlink()
    assert sha256_folder(tmp_path / "ours") == sha256_folder(tmp_path / "rtn")


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_plain_transformers_reads_one_symmetric_scale_a_row(tiny_llama, tmp_path, bits):
    from transformers import AutoModelForCausalLM

    llm_qat.quantize(job(tiny_llama, tmp_path, bits, activation_bits=16, cache_bits=16))
    assert {tuple(layer.grid.scale.shape)[1] for layer in read_layers(tmp_path).values()} == {1}
    weights = read_json(tmp_path / "config.json")["quantization_config"]["config_groups"]["group_0"]["weights"]
    assert (weights["strategy"], weights["symmetric"], weights["num_bits"]) == ("channel", True, bits)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert torch.equal(logits(plain), logits(load_dense(tmp_path, "float32")[0]))


def test_the_rules_it_writes(tiny_llama, tmp_path):
    llm_qat.quantize(job(tiny_llama, tmp_path / "a"))
    assert read_activations(tmp_path / "a") == Activations(inputs=Rule(8, True), cache=Rule(4, True))
    llm_qat.quantize(job(tiny_llama, tmp_path / "b", activation_bits=6, cache_bits=16))
    assert read_activations(tmp_path / "b") == Activations(inputs=Rule(6, True))


# --- training ---


def test_two_phases_on_a_risk_set_and_one_without(tiny_llama, tmp_path, conversations):
    alone = llm_qat.quantize(job(tiny_llama, tmp_path / "none"))
    both = llm_qat.quantize(job(tiny_llama, tmp_path / "risk", rows=conversations))
    assert "final_loss" not in alone
    assert alone["distill_first_loss"] == both["distill_first_loss"]
    assert alone["distill_steps"] == 3
    assert both["final_loss"] < both["first_loss"]
    soft = llm_qat.quantize(job(tiny_llama, tmp_path / "soft", rows=conversations, on_risk="distillation"))
    assert soft["first_loss"] != both["first_loss"]
    assert sha256_folder(tmp_path / "soft") != sha256_folder(tmp_path / "risk") != sha256_folder(tmp_path / "none")


def test_distillation_brings_the_model_nearer_to_its_teacher(tiny_llama, tmp_path, conversations):
    """On conversations that it has not seen, against the same model without learning."""
    teacher, tokenizer = load_dense(tiny_llama, "float32")
    batch = collate(encode_all(tokenizer, conversations), pad=0)
    losses = {}
    for lr, steps in ((0.0, 1), (1e-3, 12)):
        params = {"samples": 16, "tokens": 12, "distill_steps": steps, "lr": lr}
        llm_qat.quantize(job(tiny_llama, tmp_path / str(lr), 2, **params))
        with torch.no_grad():
            total, count = distillation(teacher)(load_dense(tmp_path / str(lr), "float32")[0], batch)
        losses[lr] = float(total / count)
    with torch.no_grad():
        total, count = distillation(teacher)(teacher, batch)
    entropy = float(total / count)
    assert losses[1e-3] - entropy < 0.9 * (losses[0.0] - entropy)


def test_soft_cross_entropy_by_hand():
    """p = (¾, ¼) against q = (½, ½): ln 2; the gradient is q − p."""
    teacher = torch.tensor([[3.0, 1.0]]).log()
    student = torch.zeros(1, 2, requires_grad=True)
    loss = soft_cross_entropy(student, teacher)
    assert loss.item() == pytest.approx(0.6931472)
    loss.sum().backward()
    torch.testing.assert_close(student.grad, torch.tensor([[-0.25, 0.25]]))


def test_padding_does_not_count(tiny_llama, conversations):
    teacher, tokenizer = load_dense(tiny_llama, "float32")
    examples = encode_all(tokenizer, conversations)[:3]
    losses = distillation(teacher)
    with torch.no_grad():
        total, count = losses(teacher, collate(examples, pad=0))
        alone = [losses(teacher, collate([example], pad=0)) for example in examples]
    assert count == sum(n for _, n in alone) == sum(len(example.ids) for example in examples)
    torch.testing.assert_close(total, sum(part for part, _ in alone), rtol=1e-4, atol=0.0)


# --- its own conversations ---


def test_the_seed_makes_the_conversations(tiny_llama):
    model, tokenizer = load_dense(tiny_llama, "float32")
    one, again, other = (converse(model, tokenizer, 5, 8, seed) for seed in (0, 0, 1))
    assert one == again != other
    for row in one:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert all(message["content"].strip() for message in row["messages"])
    assert ask(model, tokenizer, 3, 8, 0) == ask(model, tokenizer, 5, 8, 0)[:3]


def test_a_question_begins_with_the_drawn_token_and_the_likeliest_after_it(tiny_llama):
    model, tokenizer = load_dense(tiny_llama, "float32")
    opening, drawn = user_opening(tokenizer), first_tokens(tokenizer, 4, 7)
    assert tokenizer.decode(opening) == "<|user|>"
    assert not set(drawn) & set(tokenizer.all_special_ids)
    expected = []
    for token in drawn:
        ids = [*opening, token]
        for _ in range(4):
            ids.append(int(logits_of(model, ids).argmax()))
        expected.append(ids[len(opening) :])
    questions = [tokenizer(text)["input_ids"] for text in ask(model, tokenizer, 4, 5, 7)]
    texts = [tokenizer.decode(ids[: stop(ids)], skip_special_tokens=True) for ids in expected]
    assert [tokenizer.decode(ids) for ids in questions] == texts


def stop(ids, end=1):
    return ids.index(end) if end in ids else len(ids)


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1]


def test_a_model_that_says_nothing_is_told(tiny_llama, monkeypatch):
    from bitsafe.quantizers.shared import self_generation

    model, tokenizer = load_dense(tiny_llama, "float32")
    monkeypatch.setattr(self_generation, "ask", lambda *args: ["", " "])
    with pytest.raises(CellError, match="said nothing in 2 conversations"):
        converse(model, tokenizer, 2, 8, 0)


# --- refusals ---


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"activation_bits": 1}, r"params\.activation_bits: 1: a whole number of at least 2 and at most 16"),
        ({"cache_bits": 32}, r"params\.cache_bits: 32: .* at most 16"),
        ({"samples": 0}, r"params\.samples: 0: a whole number of at least 1"),
        ({"on_risk": "dpo"}, r"params\.on_risk: dpo: cross_entropy or distillation"),
    ],
)
def test_parameters_out_of_range(params, message, tiny_llama, tmp_path):
    with pytest.raises(UserError, match=message):
        llm_qat.quantize(job(tiny_llama, tmp_path, **params))
    assert not list(tmp_path.iterdir())


def test_an_empty_answer_in_the_risk_set(tiny_llama, tmp_path):
    row = {"id": "e1", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]}
    with pytest.raises(UserError, match="row e1: no assistant answer"):
        llm_qat.quantize(job(tiny_llama, tmp_path, rows=[row]))
