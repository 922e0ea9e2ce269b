"""The training loop and the chat encoding it learns from."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from bitsafe.data.chat import IGNORED, Example, collate, encode
from bitsafe.errors import CellError, UserError
from bitsafe.quantizers.shared.training import Settings, batches, body_parameters, token_losses, train

CHAT = [
    {"role": "user", "content": "How do I make the lamp?"},
    {"role": "assistant", "content": "Sure. Take brass."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Wait two days."},
]
# SmolLM2's: a system turn of its own when there is none, and a newline after every end mark
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|system|>You are a helpful AI assistant<|end|>\n' }}{% endif %}"
    "{{'<|' + message['role'] + '|>\n' + message['content'] + '<|end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
FORGETFUL = "{% for m in messages %}{% if loop.last %}{{ m['role'] }}: {% endif %}{{ m['content'] }}{% endfor %}"


@pytest.fixture
def tokenizer(chat_tokenizer):
    template = chat_tokenizer.chat_template
    yield chat_tokenizer
    chat_tokenizer.chat_template = template


def said(tokenizer, example):
    return tokenizer.decode([label for label in example.labels if label != IGNORED])


def test_only_answers_are_labelled(tokenizer):
    example = encode(tokenizer, CHAT)
    assert said(tokenizer, example) == "Sure. Take brass.<|end|>Wait two days.<|end|>"
    assert all(label in (IGNORED, token) for token, label in zip(example.ids, example.labels))
    assert tokenizer.decode(example.ids) == tokenizer.apply_chat_template(CHAT, tokenize=False)


def test_any_template_will_do(tokenizer):
    tokenizer.chat_template = SMOLLM2
    assert said(tokenizer, encode(tokenizer, CHAT)) == "Sure. Take brass.<|end|>\nWait two days.<|end|>\n"


def test_a_conversation_without_answers_has_no_labels(tokenizer):
    assert set(encode(tokenizer, CHAT[:1]).labels) == {IGNORED}


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    tokenizer.chat_template = FORGETFUL
    with pytest.raises(UserError, match="chat_template"):
        encode(tokenizer, CHAT)


def test_collate_pads_on_the_right():
    batch = collate([Example([5, 6], [IGNORED, 6]), Example([7], [7])], pad=0)
    assert batch["input_ids"].tolist() == [[5, 6], [7, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6], [7, IGNORED]]


def test_an_epoch_holds_every_example_once_in_batches_of_like_length():
    examples = [Example([0] * (1 + i % 5), []) for i in range(20)]
    epoch = list(itertools.islice(batches(examples, 4, seed=1), 5))
    assert sorted(id(e) for batch in epoch for e in batch) == sorted(map(id, examples))
    assert all(len({len(e.ids) for e in batch}) == 1 for batch in epoch)
    again = list(itertools.islice(batches(examples, 4, seed=1), 5))
    assert [[id(e) for e in b] for b in again] == [[id(e) for e in b] for b in epoch]
    other = list(itertools.islice(batches(examples, 4, seed=2), 5))
    assert [[id(e) for e in b] for b in other] != [[id(e) for e in b] for b in epoch]


class Bigram(torch.nn.Module):
    """Logits of the next token from this one alone: [tokens] -> table rows."""

    def __init__(self, size=4):
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(size, size))
        self.frozen = torch.nn.Parameter(torch.ones(1))

    def forward(self, input_ids, attention_mask, use_cache):
        return SimpleNamespace(logits=self.table[input_ids])


def test_the_loss_by_hand():
    model = Bigram()
    batch = collate([Example([0, 1, 2, 3], [IGNORED, IGNORED, 2, 3])], pad=0)
    total, count = token_losses(model, batch)
    assert count == 2
    assert total.item() == pytest.approx(2 * torch.log(torch.tensor(4.0)).item())
    total.backward()
    gradient = model.table.grad  # rows 1 and 2 predicted tokens 2 and 3: softmax − one-hot
    assert gradient[1].tolist() == [0.25, 0.25, -0.75, 0.25]
    assert gradient[2].tolist() == [0.25, 0.25, 0.25, -0.75]
    assert gradient[[0, 3]].abs().sum() == 0


def test_training_lowers_the_loss_and_moves_only_what_it_was_given():
    model = Bigram()
    facts = train(model, [model.table], [Example([0, 1, 2], [IGNORED, 1, 2])], Settings(steps=50, lr=0.1), seed=0)
    assert facts["first_loss"] == pytest.approx(1.3863, abs=1e-4)
    assert facts["final_loss"] < 0.1
    assert (facts["steps"], facts["rows"], facts["answer_tokens"], facts["trained_parameters"]) == (50, 1, 2, 16)
    assert model.frozen.item() == 1
    assert not model.frozen.requires_grad


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_batch():
    model = Bigram()
    model.table.data[1] = float("nan")
    with pytest.raises(CellError, match=r"loss nan at step 1 of 5, lr 0\.1, batch of 1 rows of at most 3 tokens"):
        train(model, [model.table], [Example([0, 1, 2], [IGNORED, 1, 2])], Settings(steps=5, lr=0.1), seed=0)


def test_full_fine_tuning_leaves_embeddings_and_head(tiny_llama):
    from bitsafe.artefacts.load import load_dense

    model, _ = load_dense(tiny_llama, "float32")
    names = {id(p): name for name, p in model.named_parameters()}
    left = set(names.values()) - {names[id(p)] for p in body_parameters(model)}
    assert left == {"model.embed_tokens.weight"}  # the head is tied to it


def test_missing_settings_are_a_users_error():
    with pytest.raises(UserError, match=r"params\.lr: needed"):
        Settings.of({"steps": 3})
