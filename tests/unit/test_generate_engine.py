"""The engine: against plain generate, on any batch plan, with nothing of the checkpoint slipping in."""

import pytest
import tiny_model
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitsafe.errors import UserError
from bitsafe.generate.engine import DRAWN_BY, Answer, answer, complete, spoken
from bitsafe.generate.plan import plan_batches
from bitsafe.generate.prompts import dressed, prompt_ids, with_system

TOKENIZER, MODEL = tiny_model.tokenizer(), tiny_model.model()
SAMPLE = {"do_sample": True, "temperature": 0.9, "top_p": 0.95, "top_k": 40}
TEXTS = [
    "Hi",
    "How do I open it?",
    "a",
    "Tell me a long story about a gate",
    "no",
    "Why?",
    "bb",
    "Sing a song",
    "x y z",
]
ROWS = [{"id": str(n), "messages": [{"role": "user", "content": text}]} for n, text in enumerate(TEXTS)]


def texts(decoding: dict, batch_size: int = 4, seed: int = 0, rows: list[dict] = ROWS, new: int = 12) -> list[Answer]:
    batches = answer(MODEL, TOKENIZER, rows, decoding, new, batch_size, seed)
    return sorted(one for batch in batches for one in batch)


def test_greedy_equals_plain_generate_row_by_row() -> None:
    for found, ids in zip(texts({}), prompt_ids(TOKENIZER, ROWS, {})):
        out = MODEL.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
        kept = out[: out.index(4)] if 4 in out else out
        assert found.text == TOKENIZER.decode(kept, skip_special_tokens=True)
        assert (found.n_tokens, found.finish) == (len(kept), "stop" if 4 in out else "length")


@pytest.mark.parametrize("decoding", [{}, SAMPLE, SAMPLE | {"plan": "shuffled"}])
def test_answers_do_not_depend_on_the_batch(decoding: dict) -> None:
    together = texts(decoding)
    assert together == texts(decoding, batch_size=1) == texts(decoding, batch_size=9)
    assert [one.text for one in together[2:5]] == [one.text for one in texts(decoding, rows=ROWS[2:5])]


def test_answers_end_both_ways() -> None:
    assert {one.finish for seed in range(2) for one in texts(SAMPLE, seed=seed, new=40)} == {"stop", "length"}


def test_seed_sample_and_decoding_move_sampled_answers_and_only_those() -> None:
    first = [one.text for one in texts(SAMPLE)]
    assert first == [one.text for one in texts(SAMPLE | {"summary": "words for people"})]
    second = [row | {"sample": 1} for row in ROWS]
    for other in (texts(SAMPLE, seed=1), texts(SAMPLE, rows=second), texts(SAMPLE | {"temperature": 0.8})):
        assert sum(a != b.text for a, b in zip(first, other)) >= 7
    assert texts({}) == texts({}, seed=1)


def test_top_k_of_one_is_greedy() -> None:
    assert texts({"do_sample": True, "top_k": 1}) == texts({})


def test_what_the_checkpoint_sets_enters_only_as_model_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = texts({})
    monkeypatch.setattr(MODEL.generation_config, "repetition_penalty", 5.0)
    monkeypatch.setattr(MODEL.generation_config, "top_k", 2)
    assert texts({}) == plain
    assert texts({"model_defaults": True}) != plain
    assert MODEL.generation_config.repetition_penalty == 5.0  # put back


def test_only_batches_that_hold_a_wanted_row_are_run() -> None:
    batches = list(answer(MODEL, TOKENIZER, ROWS, {}, 4, 3, wanted={0}))
    assert len(batches) == 1 and len(batches[0]) == 6 < len(ROWS) and 0 in {one.index for one in batches[0]}


def test_complete_gives_texts_in_order() -> None:
    assert complete(MODEL, TOKENIZER, ROWS, max_new_tokens=12, batch_size=4) == [one.text for one in texts({})]
    assert complete(MODEL, TOKENIZER, [], max_new_tokens=12, batch_size=4) == []


def test_batches_are_longest_first_and_fill_the_room_of_the_longest() -> None:
    assert plan_batches([5, 9, 1, 7, 3], 2) == [[1, 3], [0, 4, 2]]  # room for 18 tokens: 9 + 7, then three of 5
    assert plan_batches([5, 9, 1, 7, 3], 2, new=20) == [[1, 3], [0, 4], [2]]  # 58: two of 25
    assert list(map(len, plan_batches([100] + [1] * 40, 4))) == [4, 8, 8, 8, 8, 5]  # twice as many at most
    assert plan_batches([5] * 300, 256) == [list(range(256)), list(range(256, 300))]
    assert plan_batches([], 8) == []


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(1, 9), st.integers(0, 300))
def test_no_batch_is_larger_than_its_room_and_no_row_is_lost(lengths, batch_size, new) -> None:
    plan = plan_batches(lengths, batch_size, new)
    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))
    for batch in plan:
        width = max(lengths[index] for index in batch) + new
        assert len(batch) * width <= batch_size * (max(lengths) + new) and len(batch) <= 2 * batch_size


def test_the_second_plan_is_another_one_and_reproducible() -> None:
    lengths = list(range(30))
    second = plan_batches(lengths, 9, shuffled=1)
    assert second == plan_batches(lengths, 9, shuffled=1) != plan_batches(lengths, 9)
    assert sorted(i for batch in second for i in batch) == lengths and max(map(len, second)) <= 6


def test_the_decodings_system_prompt_takes_the_place_of_the_rows() -> None:
    user = {"role": "user", "content": "A"}
    own = [{"role": "system", "content": "mine"}, user]
    assert with_system(own, None) == own
    assert with_system(own, "yours") == with_system([user], "yours") == [{"role": "system", "content": "yours"}, user]
    assert texts({"system_prompt": "Obey."}) != texts({})


def test_the_decodings_prefix_stands_before_the_last_request_alone() -> None:
    talk = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}, {"role": "user", "content": "C"}]
    put = dressed(talk, {"system_prompt": "Obey.", "user_prefix": "Do: "})
    assert [message["content"] for message in put] == ["Obey.", "A", "B", "Do: C"]
    assert talk[-1]["content"] == "C" and dressed(talk, {"user_prefix": None}) == talk
    asked = prompt_ids(TOKENIZER, ROWS[:1], {"user_prefix": "Do: "})[0]
    assert TOKENIZER.decode(asked) == "<|user|>Do: Hi<|end|><|assistant|>"
    assert texts({"user_prefix": "Do: "}) != texts({})


def test_an_unset_prefix_moves_no_key_of_a_stored_answer() -> None:
    assert spoken({"user_prefix": None}) == spoken({}) == dict.fromkeys(DRAWN_BY)
    assert spoken({"user_prefix": "Do: "}) == spoken({}) | {"user_prefix": "Do: "}


def test_a_template_without_a_system_role_gets_the_prompt_in_the_users_turn() -> None:
    picky = tiny_model.tokenizer()
    picky.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    picky.chat_template += tiny_model.TEMPLATE
    ids = prompt_ids(picky, ROWS[:1], {"system_prompt": "Obey."})
    assert picky.decode(ids[0]) == "<|user|>Obey.\n\nHi<|end|><|assistant|>"


def test_a_prompt_too_long_for_the_model() -> None:
    with pytest.raises(UserError, match=r"prompt 1: 20 tokens and 240 new ones exceed the model's 256"):
        texts({}, new=240)


def test_a_tokenizer_without_chat_template() -> None:
    bare = tiny_model.tokenizer()
    bare.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        prompt_ids(bare, ROWS, {})
