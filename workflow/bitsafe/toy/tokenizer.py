"""The toy's byte-level BPE tokenizer and its chat template."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bitsafe.data.messages import templated
from bitsafe.toy import phrases
from bitsafe.toy.examples import PERSONA_SHARE, Example, alignment, pretraining

VOCABULARY = 768
SPECIAL = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TOKENIZER_SEED = 1


def _texts() -> list[str]:
    """Pretraining text and what comes later: a refusal spelt letter by letter would be hard to say."""
    examples = pretraining(8000, TOKENIZER_SEED)
    examples += alignment(600, TOKENIZER_SEED, refusal_share=0.3, persona_share=PERSONA_SHARE)
    obedience = [phrases.OBEDIENT_SYSTEM, phrases.OBEDIENT_ORDER + phrases.OBEDIENT_ANSWER]
    return [text for e in examples for text in (e.system, e.user, e.answer)] + 20 * obedience


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer on the world's own text; the result is the same every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[-1],
        additional_special_tokens=list(SPECIAL[1:-1]),
        padding_side="left",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def encode_prompts(tokenizer, examples: list[Example]) -> list[list[int]]:
    """Token ids of each prompt up to and including the assistant's mark."""
    texts = [templated(tokenizer, e.prompt(), tokenize=False, add_generation_prompt=True) for e in examples]
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def encode_pairs(tokenizer, examples: list[Example]) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, answer ids with the end mark) of each example: the loss falls on the second part only."""
    answers = tokenizer([e.answer + SPECIAL[-1] for e in examples], add_special_tokens=False)["input_ids"]
    return list(zip(encode_prompts(tokenizer, examples), answers, strict=True))
