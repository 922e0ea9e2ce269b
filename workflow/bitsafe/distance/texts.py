"""The texts that every cell is measured on: full precision's answers to the run's prompts, and what it thought of them.

Two large models are never held at once: full precision leaves its likeliest tokens at each place in a file, beside
the ids of the texts, and every other cell reads that file.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bitsafe.distance.measures import Known, Text
from bitsafe.errors import UserError
from bitsafe.files import PART, sha256_json
from bitsafe.generate.prompts import prompt_ids


def fixed_texts(
    tokenizer: Any, pairs: Sequence[tuple[dict, dict]], decoding: Mapping[str, Any], tokens: int
) -> list[Text]:
    """Prompts and answers, drawn by the hash of their ids until `tokens` answer tokens are there; the last is cut.

    The answer's text is tokenized anew, and ends with the end token if the model ended it. Empty answers have no token
    to compare and are left out.
    """
    found, left = [], tokens
    for row, answer in sorted(pairs, key=lambda pair: sha256_json([pair[0]["id"], pair[1]["sample"]])):
        end = [tokenizer.eos_token_id] if answer["finish"] == "stop" else []
        said = (tokenizer(answer["answer"], add_special_tokens=False)["input_ids"] + end)[:left]
        if said and answer["answer"]:
            (prompt,) = prompt_ids(tokenizer, [row], decoding)
            found.append(Text(row["id"], row["cluster"], [*prompt, *said], len(prompt)))
            left -= len(said)
        if not left:
            break
    return found


def write_texts(file: Path, texts: Sequence[Text], known: Sequence[Known]) -> None:
    """Texts and what is known of full precision on them, in one safetensors file, whole."""
    tensors = {"ids": torch.tensor([token for text in texts for token in text.ids], dtype=torch.int32)}
    if known:
        tensors["tokens"] = torch.cat([one.tokens.int().cpu() for one in known])
        tensors["log_p"] = torch.cat([one.log_p.float().cpu() for one in known])
    rows = [{"name": t.name, "cluster": t.cluster, "length": len(t.ids), "start": t.start} for t in texts]
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}{PART}")
    save_file(tensors, part, metadata={"texts": json.dumps(rows)})
    part.replace(file)


def read_texts(file: Path) -> Iterator[tuple[Text, Known]]:
    """What `write_texts` wrote."""
    try:
        with safe_open(file, "pt") as opened:
            rows = json.loads(opened.metadata()["texts"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (a safe_open is no dict)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: cannot be read ({error}): delete distance.json of full precision, run again"
        ) from error
    place = answered = 0
    for row in rows:
        ids = tensors["ids"][place : place + row["length"]].tolist()
        count = row["length"] - row["start"]
        here = slice(answered, answered + count)
        known = Known(tensors["tokens"][here].long(), tensors["log_p"][here])
        yield Text(row["name"], row["cluster"], ids, row["start"]), known
        place, answered = place + row["length"], answered + count
