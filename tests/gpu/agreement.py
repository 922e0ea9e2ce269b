"""The two comparisons of `make test-gpu`: a cell answered here and on a CPU, and a cell trained here and on a CPU."""

from pathlib import Path
from typing import Any

import torch
from tests.gpu.answers import Asked, greedy, tie, verdicts
from tests.gpu.retrained import arms, said, within_noise

from bitsafe.artefacts.load import load_dense
from bitsafe.generate.device import place


def exactly() -> None:
    """No TF32: a float32 product of 10 bits would be another experiment."""
    torch.set_float32_matmul_precision("highest")


def compared(cpu: dict[str, Any], asked: list[Asked], new: int) -> dict[str, Any]:
    """Verdicts of the same artefact answered on the card in float32, greedily, beside those of the CPU's answers.

    {n, alike, texts: answers of another text, differing: each answer of another verdict, with its tie on the CPU}
    """
    exactly()
    here, tokenizer = load_dense(Path(cpu["artefact"]), "float32")
    there, here = load_dense(Path(cpu["artefact"]), "float32")[0], place(here)
    found: dict[str, Any] = {"n": 0, "alike": 0, "texts": 0, "differing": []}
    for each in asked:
        theirs, mine = cpu["tokens"][each.name], greedy(here, tokenizer, each.rows, new)
        pairs = zip(*(verdicts(each, tokens, there, tokenizer) for tokens in (theirs, mine)))
        for row, one, other, (a, b) in zip(each.rows, theirs, mine, pairs):
            found["n"] += 1
            found["alike"] += a == b
            found["texts"] += one != other
            if a != b:
                found["differing"].append(tie(there, tokenizer, row, one, other) | {"cpu": a, "card": b})
    return found


def trained_again(artefacts: dict[str, Path], asked: list[Asked], new: int, folder: Path) -> dict[str, dict]:
    """By benchmark, whether `again` says what `made` does; both answered here, `full` twice for the noise."""
    exactly()
    texts: dict[str, dict[str, list[str]]] = {each.name: {} for each in asked}
    for arm, artefact in artefacts.items():
        model, tokenizer = load_dense(Path(artefact), "float32")
        model = place(model)
        for each in asked:
            texts[each.name][arm] = said(model, tokenizer, each, new)
            if arm == "full":
                texts[each.name]["noise"] = said(model, tokenizer, each, new, again=True)
    return {each.name: within_noise(each, arms(each, texts[each.name], folder)) for each in asked}
