"""The decoding loop against transformers' own `generate`, one row at a time, on several architectures."""

import numpy as np
import pytest
import tiny_model
import torch
import transformers
from test_architectures import MODELS, SIZES

from bitsafe.errors import UserError
from bitsafe.generate.cache import EntryCache
from bitsafe.generate.decode import Decoding, _branches, _places, shared_beginning
from bitsafe.generate.defaults import processors_of
from bitsafe.generate.engine import finish
from bitsafe.generate.sampling import Knobs, resolve, uniforms

STOPS = {1}
ARCHITECTURES = MODELS | {  # windows shorter than the sequences, so that what slides out is masked
    "gemma2_short": ("Gemma2", {"tie_word_embeddings": True, "sliding_window": 6}),
    "mistral_short": ("Mistral", {"tie_word_embeddings": False, "sliding_window": 6}),
    "qwen2_short": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1, "tie_word_embeddings": False},
    ),
}


def made(name):
    family, changes = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES | {"initializer_range": 0.3} | changes)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def prompts_of(lengths, vocabulary=320):
    draw = np.random.default_rng(0)
    return [draw.integers(5, vocabulary, length).tolist() for length in lengths]


def loop_of(model, prompts, decoding, new=16, entries=8, first=0, stops=STOPS, processors=None):
    """first: the number of the first row, which its random numbers go by."""
    knobs = Knobs.of([resolve(decoding, transformers.GenerationConfig())] * len(prompts))
    draws = torch.from_numpy(np.stack([uniforms(first + row, new) for row in range(len(prompts))]))
    return Decoding(model, prompts, knobs, draws, stops, entries, processors)


def decoded(*args, **kwargs):
    return loop_of(*args, **kwargs).run()


def plain(model, prompt, new=16, **settings):
    out = model.generate(torch.tensor([prompt]), max_new_tokens=new, do_sample=False, **settings)
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_rows_in_a_padded_batch_equal_generate_on_each_alone(name):
    model, prompts = made(name), prompts_of([3, 11, 7, 1, 11])
    assert decoded(model, prompts, {}) == [plain(model, prompt) for prompt in prompts]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_beginning_that_all_share_is_read_once_and_changes_no_answer(name):
    """Prompts shorter and longer than it, so that padding pushes some of it out of the first slots."""
    model, read = made(name), []
    prompts = [prompts_of([12])[0] + rest for rest in prompts_of([3, 30, 7, 1, 11])]
    expected = [plain(model, prompt) for prompt in prompts]
    model.register_forward_pre_hook(lambda _, args, kwargs: read.append(kwargs["input_ids"].shape), with_kwargs=True)
    assert decoded(model, prompts, {}) == expected
    assert read[:2] == [(1, 12), (5, 30)] and set(read[2:]) <= {(rows, 1) for rows in range(1, 6)}


def test_a_beginning_too_short_to_pay_is_read_with_each_prompt():
    model, read = made("llama_untied"), []
    model.register_forward_pre_hook(lambda _, args, kwargs: read.append(kwargs["input_ids"].shape), with_kwargs=True)
    decoded(model, [[5, 6, 7, last] for last in range(8, 16)], {})
    assert read[0] == (8, 4)


def test_shared_beginning_by_hand():
    assert shared_beginning([[1, 2, 3, 4], [1, 2, 5]]) == 2
    assert shared_beginning([[1, 2, 3], [1, 2]]) == 1  # the last token of a prompt is read with it
    assert shared_beginning([[1, 2], [3]]) == 0
    assert shared_beginning([[1, 2, 3]]) == 2


@pytest.mark.parametrize("entries", [1, 2, 3, 100])
def test_rows_that_share_a_beginning_answer_as_if_alone(entries):
    """24 rows of 3 prompts: any number of entries, so parted, moved, parked and read again."""
    model, prompts = made("llama_untied"), [p for p in prompts_of([5, 9, 2]) for _ in range(8)]
    asked = {"decoding": {"do_sample": True, "temperature": 0.7}, "stops": set(range(1, 24))}
    alone = [decoded(model, [prompt], first=row, **asked)[0] for row, prompt in enumerate(prompts)]
    assert decoded(model, prompts, entries=entries, **asked) == alone
    assert len({tuple(row) for row in alone}) > 10 and len({len(row) for row in alone}) > 3


def test_equal_rows_take_one_pass_a_step():
    loop = loop_of(made("llama_untied"), prompts_of([6]) * 49, {}, new=10, stops={-1})
    assert len({tuple(row) for row in loop.run()}) == 1 and loop.passes == 9


def test_finished_rows_take_no_pass():
    model, prompts = made("llama_untied"), prompts_of([6, 6, 6])
    first = [row[0] for row in decoded(model, prompts, {}, new=1)]
    loop = loop_of(model, prompts, {}, new=10, stops=set(first[:2]))
    assert [len(row) for row in loop.run()][:2] == [1, 1] and loop.passes <= 9


@pytest.mark.parametrize("beginning", [[], [9] * 20], ids=["", "shared"])
@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 5.0},
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": [[7], [8, 9]]},
        {"suppress_tokens": [7]},
    ],
)
def test_penalties_of_a_checkpoint_equal_generate_in_any_padding(settings, beginning):
    model, prompts = made("llama_untied"), [beginning + rest for rest in prompts_of([3, 11, 7])]
    processors = processors_of(transformers.GenerationConfig(**settings), STOPS, "cpu")
    assert decoded(model, prompts, {}, processors=processors) == [plain(model, p, **settings) for p in prompts]


def test_a_setting_of_a_checkpoint_that_is_not_known_is_refused():
    with pytest.raises(UserError, match=r"min_p: 0\.1 is not supported by `model_defaults`"):
        processors_of(transformers.GenerationConfig(min_p=0.1), STOPS, "cpu")
    assert not processors_of(transformers.GenerationConfig(), STOPS, "cpu")


def test_a_model_without_keys_and_values_is_refused():
    config = tiny_model.model().config
    config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(UserError, match="llama: layers of kind linear_attention"):
        EntryCache(config, 8, 8)


def test_places_by_hand():
    # entry 0 parts in two, 1 has ended, 2 and 3 go on
    parents, tokens, followed = _branches(np.array([3, 0, 0, 2, 0]), np.array([5, 9, 4, 5, 9]))
    assert (parents.tolist(), tokens.tolist(), followed.tolist()) == ([0, 0, 2, 3], [4, 9, 5, 5], [3, 1, 0, 2, 1])
    assert _places(parents).tolist() == [0, 1, 2, 3]
    assert _places(np.array([1, 4])).tolist() == [1, 0]  # fewer: the last entry moves to the front
    assert _places(np.array([0, 0, 0, 1])).tolist() == [0, 2, 3, 1]  # more: copies go to the end


def test_a_row_whose_logits_are_no_numbers_has_no_answer_and_the_others_have_theirs():
    model, prompts = made(next(iter(ARCHITECTURES))), prompts_of([5, 9, 7])
    whole, real = decoded(model, prompts, {}), model.forward

    def broken(**named):
        out = real(**named)
        if len(out.logits) == 3:
            out.logits[1, -1, 7] = torch.inf
        return out

    model.forward = broken
    assert decoded(model, prompts, {}) == [whole[0], None, whole[2]]
    assert finish(tiny_model.tokenizer(), 1, None, STOPS) == (1, "", 0, "no_numbers")
