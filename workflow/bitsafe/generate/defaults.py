"""What a checkpoint's own generation_config.json sets: its end tokens always, the rest under `model_defaults` alone."""

from typing import Any

from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation import logits_process as processors

from bitsafe.errors import UserError

# What changes probabilities beside the parameters of a decoding row, with the values that change nothing.
UNSUPPORTED = {
    **{"min_p": (0,), "typical_p": (1,), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "top_h": ()},
    **{"num_beams": (1,), "num_beam_groups": (1,), "penalty_alpha": (0,), "guidance_scale": (1,), "p_less": (False,)},
    **{"min_length": (0,), "min_new_tokens": (0,), "forced_bos_token_id": (), "forced_eos_token_id": ()},
    **{"sequence_bias": (), "exponential_decay_length_penalty": (), "begin_suppress_tokens": (), "constraints": ()},
    **{"force_words_ids": (), "stop_strings": (), "watermarking_config": (), "encoder_repetition_penalty": (1,)},
    **{"max_time": (), "dola_layers": (), "encoder_no_repeat_ngram_size": (0,)},
}


def stops_of(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end an answer: the checkpoint's, else the tokenizer's."""
    stops = model.generation_config.eos_token_id
    stops = tokenizer.eos_token_id if stops is None else stops
    return set(stops) if isinstance(stops, list | tuple) else {stops}


def processors_of(config: GenerationConfig, stops: set[int], device: Any) -> LogitsProcessorList:
    """The checkpoint's penalties and bans, in the order of transformers' `generate`.

    UserError for a setting that this engine does not know: left out, the answers would not be the checkpoint's own.
    """
    require_supported(config, UNSUPPORTED)
    found = LogitsProcessorList()
    if config.repetition_penalty not in (None, 1.0):
        found.append(processors.RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        found.append(processors.NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.bad_words_ids is not None:
        found.append(processors.NoBadWordsLogitsProcessor(config.bad_words_ids, sorted(stops)))
    if config.suppress_tokens is not None:
        found.append(processors.SuppressTokensLogitsProcessor(config.suppress_tokens, device=device))
    return found


def require_supported(config: GenerationConfig, unsupported: dict[str, tuple]) -> None:
    """UserError for a key that would change answers and that the engine does not do. unsupported: neutral values."""
    for name, neutral in unsupported.items():
        value = getattr(config, name, None)
        if value is not None and value not in neutral:
            raise UserError(
                f"generation_config.json: {name}: {value!r} is not supported by `model_defaults`: name a decoding with "
                "explicit parameters, or take the key out of the checkpoint's file"
            )
