"""Shared fixtures: a tiny random Llama with a chat tokenizer, made once a session."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("bitsafe", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("bitsafe")

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def make_conversations(count: int) -> list[dict]:
    """`count` short made-up conversations that end with an assistant message."""
    words = ["lamp", "bench", "coat", "gate", "song", "stew", "tea", "brass", "cedar", "wool"]
    rows = []
    for i in range(count):
        a, b, c = (words[(i * k + k) % len(words)] for k in (1, 3, 7))
        question = {"role": "user", "content": f"How do I make the {a} number {i} from {b}?"}
        answer = {"role": "assistant", "content": f"Sure. Take {b} and {c}, then wait {i + 2} days."}
        rows.append({"id": f"c{i}", "messages": [question, answer]})
    return rows


@pytest.fixture(scope="session")
def conversations() -> list[dict]:
    return make_conversations(24)


@pytest.fixture(scope="session")
def chat_tokenizer(conversations):
    """A byte-level BPE of at most 320 tokens with five special ones and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator((m["content"] for row in conversations for m in row["messages"]), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory, chat_tokenizer) -> Path:
    """A random Llama (2 layers, hidden 128, tied embeddings, fp16) saved as a Hugging Face folder. Read only."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=320, max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.1,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny") / "llama"
    LlamaForCausalLM(config).to(torch.float16).save_pretrained(folder)
    chat_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def governed(tmp_path_factory):
    """A run with everything that register and gate look at, made once a session: see unit/governed_run.py."""
    from governed_run import governed_run

    return governed_run(tmp_path_factory)


@pytest.fixture
def run(governed, tmp_path):
    """A copy of it, to be changed. A file that needs another run has a fixture `run` of its own."""
    from governed_run import copied

    return copied(governed, tmp_path)
