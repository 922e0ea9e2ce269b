"""Asking an OpenAI-compatible chat endpoint, many prompts at a time, each with its own parameters and seed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from bitsafe.artefacts.artefact import dense_folder
from bitsafe.artefacts.load import load_tokenizer
from bitsafe.errors import UserError
from bitsafe.files import sha256_json
from bitsafe.generate.defaults import UNSUPPORTED, require_supported
from bitsafe.generate.engine import Answer, each_setting, stream_key, track
from bitsafe.generate.plan import wanted_only
from bitsafe.generate.prompts import accepted, dressed
from bitsafe.generate.sampling import resolve
from bitsafe.generate.store import UNANSWERED

LOCAL = ("no_repeat_ngram_size", "bad_words_ids", "suppress_tokens")  # what only the loop of this process does


@dataclass(frozen=True)
class Endpoint:
    """client: openai.OpenAI; model: its name there; beyond: parameters beyond OpenAI's own that it honours."""

    client: Any
    model: str
    artefact: Path
    beyond: Sequence[str]

    def ask(
        self,
        conversations: Sequence[dict],
        decoding: dict[str, Any],
        max_new_tokens: int,
        batch_size: int,
        seed: int = 0,
        *,
        wanted: set[int] | None = None,
        progress: str | None = None,
    ) -> Iterator[list[Answer]]:
        """As `engine.answer`, `batch_size` requests at once. UserError for what the endpoint cannot do."""
        folder = dense_folder(self.artefact)
        tokenizer, defaults = load_tokenizer(folder), generation_config(folder)
        if "strftime_now" in str(tokenizer.chat_template):
            raise UserError(
                f"generate.engine: the chat template of {self.artefact} writes today's date, and the endpoint of "
                f"{self.model} puts it: prompts would differ by the day: answer with `engine: transformers`"
            )
        asked = each_setting(conversations, decoding)
        settings = {sha256_json(row): self._parameters(row, defaults) for row in unlike(asked)}

        def one(index: int) -> Answer:
            row, put = conversations[index], asked[index]
            messages = accepted(tokenizer, dressed(row["messages"], put))
            drawn = int(sha256_json(stream_key(row, put, seed))[:8], 16) >> 1
            given = settings[sha256_json(put)] | {"messages": messages, "max_tokens": max_new_tokens, "seed": drawn}
            return self._answer(index, given)

        order = sorted(range(len(conversations)) if wanted is None else wanted)
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        with ThreadPoolExecutor(batch_size) as pool:
            for batch in track(wanted_only(batches, wanted), progress):
                asking = [pool.submit(one, index) for index in batch]
                failed = [said.exception() for said in asking if said.exception()]
                yield [said.result() for said in asking if not said.exception()]  # kept, also where another failed
                if failed:
                    raise failed[0]

    def _parameters(self, decoding: dict[str, Any], defaults: GenerationConfig) -> dict[str, Any]:
        """Arguments of a request that say how its answer is drawn."""
        explicit, beyond = resolve(decoding, defaults), {}
        if decoding.get("model_defaults"):
            require_supported(defaults, UNSUPPORTED | dict.fromkeys(LOCAL, (0,)))
            if defaults.repetition_penalty not in (None, 1.0):
                beyond["repetition_penalty"] = defaults.repetition_penalty
        if not explicit["do_sample"]:
            drawn = {"temperature": 0.0}
        else:
            drawn = {"temperature": explicit["temperature"], "top_p": explicit["top_p"]}
            beyond |= {"top_k": int(explicit["top_k"])} if explicit["top_k"] else {}
        if refused := sorted(set(beyond) - set(self.beyond)):
            raise UserError(
                f"generate.engine: the endpoint of {self.model} takes no {refused[0]} (`beyond` of its row), and the "
                f"decoding needs {refused[0]}: {beyond[refused[0]]}: ask another decoding or engine"
            )
        return drawn | {"extra_body": beyond}

    def _answer(self, index: int, given: dict[str, Any]) -> Answer:
        import openai

        try:
            said = self.client.chat.completions.create(model=self.model, **given)
        except openai.OpenAIError as error:
            where = f"{self.client.base_url}: {self.model}"
            raise UserError(f"{where}: no answer ({type(error).__name__}: {error}): is it served there?") from error
        if not said.choices:
            raise UserError(f"{self.client.base_url}: {self.model}: no choices in its reply: is it a chat endpoint?")
        choice, tokens = said.choices[0], said.usage.completion_tokens if said.usage else 0
        if choice.message.content is None:  # an empty answer would be judged as one
            reason = choice.finish_reason if choice.finish_reason in UNANSWERED else "no_content"
            return Answer(index, "", tokens, reason)
        return Answer(index, choice.message.content, tokens, choice.finish_reason)


def unlike(rows: Sequence[dict]) -> list[dict]:
    return list({sha256_json(row): row for row in rows}.values())


def generation_config(folder: Path) -> GenerationConfig:
    there = (folder / "generation_config.json").exists()
    return GenerationConfig.from_pretrained(folder) if there else GenerationConfig()


def client(base_url: str, key: str) -> Any:
    import openai

    return openai.OpenAI(base_url=base_url, api_key=key, max_retries=5, timeout=600)
