"""Questions with options: each letter's probability is that of a full softmax, one prompt at a time."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import tiny_model
import torch

from bitsafe.errors import UserError
from bitsafe.files import read_jsonl
from bitsafe.generate import options
from bitsafe.generate.prompts import prompt_ids
from bitsafe.generate.step import GenerateJob, generate_replicate, second_arm

ROWS = [
    {
        "id": f"q{n}",
        "messages": [{"role": "user", "content": f"Which {n}{'?' * (n % 4 * 7)}"}],
        "choices": ["A", "B", "C", "D"][: 2 + n % 3],
        "opens": "Answer:",
    }
    for n in range(9)
]


def job(folder: Path, **changes: object) -> GenerateJob:
    given = {
        "opened": lambda: nullcontext(partial(options.answer, tiny_model.model(), tiny_model.tokenizer())),
        "told": "here",
        "identity": "tiny",
        "folder": folder,
        "benchmarks": {"b": ROWS},
        "decodings": {"greedy": {}, "sample": {"do_sample": True, "temperature": 1.0}},
        "max_new_tokens": 8,
        "batch_size": 4,
    }
    return GenerateJob(**given | changes)


def naive(row: dict, decoding: dict) -> dict[str, float]:
    """A softmax over all tokens after one unpadded prompt; one token a letter in this tokenizer, the bare one."""
    model, tokenizer = tiny_model.model(), tiny_model.tokenizer()
    (ids,) = prompt_ids(tokenizer, [row], decoding)
    ids += [tokenizer.convert_tokens_to_ids(c) for c in "Answer:"]
    with torch.inference_mode():
        p = torch.softmax(model(torch.tensor([ids])).logits[0, -1].double(), -1)
    return {letter: float(p[tokenizer.convert_tokens_to_ids(letter)].log()) for letter in row["choices"]}


@pytest.mark.parametrize("decoding", [{}, {"system_prompt": "Be right."}, {"user_prefix": "Now: "}])
def test_each_option_has_its_probability(decoding: dict) -> None:
    batches = options.answer(tiny_model.model(), tiny_model.tokenizer(), ROWS, decoding, 8, 4)
    found = {one.index: one for batch in batches for one in batch}
    assert len(found) == len(ROWS)
    for index, row in enumerate(ROWS):
        wanted = naive(row, decoding)
        assert found[index].options == pytest.approx(wanted, abs=1e-4)
        assert found[index].text == max(wanted, key=wanted.get) and found[index].finish == "choice"
    assert len({round(one.options["A"], 2) for one in found.values()}) > 4, "each prompt has numbers of its own"


def test_a_letter_with_and_without_its_space_counts_together() -> None:
    tokenizer = tiny_model.tokenizer()
    assert options.letter_tokens(tokenizer, "Answer:", "A") == [tokenizer.convert_tokens_to_ids("A")]
    tokenizer.add_tokens([" A"])  # now one token writes the letter with its space
    both = options.letter_tokens(tokenizer, "Answer:", "A")
    assert sorted(both) == sorted(tokenizer.convert_tokens_to_ids(["A", " A"]))
    scores = torch.full((tokenizer.vocab_size + 5,), -50.0)
    scores[both] = torch.tensor([0.1, 0.2]).log()
    scores[tokenizer.convert_tokens_to_ids("B")] = torch.tensor(0.25).log()
    tokens = {"A": both, "B": options.letter_tokens(tokenizer, "Answer:", "B")}
    one = options.chosen(7, tokens, scores)
    assert one.text == "A" and one.index == 7
    assert one.options == pytest.approx({"A": torch.tensor(0.3).log().item(), "B": torch.tensor(0.25).log().item()})


def test_a_letter_of_several_tokens_is_an_error() -> None:
    with pytest.raises(UserError, match="no one token writes 'AB' after 'Answer:'"):
        options.letter_tokens(tiny_model.tokenizer(), "Answer:", "AB")


def test_no_numbers_choose_nothing_and_ties_the_first() -> None:
    tokens = {"A": [0], "B": [1]}
    assert options.chosen(0, tokens, torch.tensor([torch.nan, 0.0]))[1:] == ("", 0, "choice", {})
    assert options.chosen(0, tokens, torch.tensor([-1.0, -1.0])).text == "A"


def test_choices_are_kept_and_shared_by_decodings_and_samples(tmp_path: Path) -> None:
    counts = generate_replicate(job(tmp_path, samples=2))
    assert (counts.found, counts.generated) == (2 * len(ROWS), len(ROWS))
    greedy, sample = (read_jsonl(tmp_path / f"answers/b.{name}.jsonl") for name in ("greedy", "sample"))
    assert greedy == sample and len(greedy) == 2 * len(ROWS)
    assert greedy[0].keys() == {"id", "sample", "answer", "n_tokens", "finish", "options"}
    assert greedy[0]["answer"] == max(greedy[0]["options"], key=greedy[0]["options"].get)


def test_what_moves_a_choice_asks_again(tmp_path: Path) -> None:
    generate_replicate(job(tmp_path))

    def asked(**changes: object) -> int:
        return generate_replicate(job(tmp_path, **changes)).generated

    assert asked(seed=1, max_new_tokens=9) == 0
    fewer = [row | {"choices": row["choices"][:2]} for row in ROWS]
    assert asked(benchmarks={"b": fewer}) == sum(len(row["choices"]) > 2 for row in ROWS)
    assert asked(benchmarks={"b": [row | {"opens": "A:"} for row in ROWS]}) == len(ROWS)
    assert asked(decodings={"system": {"system_prompt": "Be right."}}) == len(ROWS)
    assert asked(decodings={"greedy_aa": second_arm({})}) == len(ROWS)
    free = [{"id": row["id"], "messages": row["messages"]} for row in ROWS]
    assert asked(benchmarks={"b": free}, decodings={"greedy": {}}) == len(ROWS), (
        "a letter is no answer to the same words"
    )


def test_a_prompt_without_room_is_named() -> None:
    model = tiny_model.model(room=10)
    with pytest.raises(UserError, match="prompt q0: "):
        next(options.answer(model, tiny_model.tokenizer(), ROWS, {}, 8, 4))


def test_samples_and_settings_of_a_question_share_its_forward_pass() -> None:
    model, passed = tiny_model.model(), []
    real = model.forward
    model.forward = lambda input_ids, **named: passed.append(len(input_ids)) or real(input_ids, **named)
    asked = [row | {"sample": k} for row in ROWS for k in range(5)]
    found = [one for batch in options.answer(model, tiny_model.tokenizer(), asked, {}, 8, 4) for one in batch]
    assert sum(passed) == len(ROWS) and [asked[one.index]["sample"] for one in found] == [0] * len(ROWS)
