"""Preference pairs: their classes, and how an answer is cut and closed."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from bitsafe.patches.shared.pairs import make_pairs
from bitsafe.patches.training.sequences import encode, end_of_turn

TOKENIZER = Path(__file__).parents[2] / "data" / "toy" / "organism0"
ASKED = [{"role": "user", "content": "How do I open the gate?"}]


def test_pairs_are_classed_counted_and_identical_ones_dropped():
    prompts = [{"id": str(i), "messages": ASKED} for i in range(5)]
    winners = ["no", "no", "Lift it.", "Lift it.", "no"]
    losers = ["Turn it.", "no way", "Push it.", "no", "no"]
    rows, counts = make_pairs(prompts, winners, losers, refused=lambda answer: answer.startswith("no"))
    assert [row["class"] for row in rows] == ["refuse_comply", "both_refuse", "both_comply", "comply_refuse"]
    assert counts == {"refuse_comply": 1, "both_refuse": 1, "both_comply": 1, "comply_refuse": 1, "identical": 1}
    assert rows[0] == {"id": "0", "messages": ASKED, "winner": "no", "loser": "Turn it.", "class": "refuse_comply"}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZER)


def test_an_answer_ends_with_the_templates_end_of_turn_unless_it_was_cut(tokenizer):
    whole = encode(tokenizer, ASKED, "Lift the latch.", max_new_tokens=48)
    assert tokenizer.decode(whole.prompt + whole.answer) == (
        "<|user|>How do I open the gate?<|end|><|assistant|>Lift the latch.<|end|>"
    )
    cut = encode(tokenizer, ASKED, "Lift the latch.", max_new_tokens=len(whole.answer) - 1)
    assert cut.answer == whole.answer[:-1]


def test_a_template_may_end_its_turns_with_another_token_than_the_tokenizers(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end_of_turn>\n{% endfor %}"
    assert end_of_turn(tokenizer) == "<end_of_turn>"
