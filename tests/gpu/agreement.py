"""The two comparisons of `make test-gpu`: a cell answered here and on a CPU, and a cell trained here and on a CPU."""

from pathlib import Path
from typing import Any

import torch
from tests.gpu.answers import BATCH, Asked, greedy, judged, tie, verdicts

from bitsafe.artefacts.load import load_dense
from bitsafe.files import sha256_text, write_jsonl
from bitsafe.generate.device import place
from bitsafe.generate.engine import answer
from bitsafe.generate.step import second_arm
from bitsafe.matrix.tables import Tables
from bitsafe.stats.contrasts import Settings, compare
from bitsafe.stats.power import mde
from bitsafe.stats.verdicts import METRICS, Metric, Names, Verdicts, read_verdicts


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


def said(model: Any, tokenizer: Any, asked: Asked, new: int, *, again: bool = False) -> list[str]:
    """The answers as a run draws them (decoding `default`); again: those of its A/A run, another seed and plan."""
    row = Tables().get("decodings", "default", "test-gpu").model_dump()
    decoding = second_arm(row) if again else row
    found = [""] * len(asked.rows)
    for batch in answer(model, tokenizer, asked.rows, decoding, new, BATCH, decoding.get("reseed", 0)):
        for one in batch:
            found[one.index] = one.text
    return found


def arms(asked: Asked, texts: dict[str, list[str]], folder: Path) -> dict[str, Verdicts]:
    """Verdicts of each arm, their answers paired by number."""
    names, found = Names(), {}
    for arm, answers in texts.items():
        file = folder / f"{arm}.{asked.name}.jsonl"
        write_jsonl(file, [_verdict_row(*pair) for pair in zip(asked.rows, answers, judged(asked, answers))])
        found[arm] = read_verdicts([file], names)
    return found


def _verdict_row(row: dict, text: str, verdict: dict) -> dict[str, Any]:
    known = {"id": row["id"], "sample": 0, "cluster": row["cluster"], "category": row["category"]}
    return known | verdict | {"answer_sha": sha256_text(text), "degenerate": False}


def within_noise(asked: Asked, found: dict[str, Verdicts]) -> dict[str, Any]:
    """The contrast of the retrained cell with the one that it should equal, and whether it is one at all.

    found: `made` and `again` (retrained), and full precision twice, `full` and `noise`. Within the noise floor: the
    difference is below the smallest that the run could have found, given how often full precision contradicts itself
    (`mde`, for yes-or-no outcomes), and its own test does not find one.
    """
    metric, settings = METRICS[asked.kind][0], Settings()
    row = compare(found["again"], found["made"], metric, settings)
    least = smallest(row, metric, found)
    inside = row["p"] >= settings.alpha and (least is None or abs(row["delta"]) <= least)
    shown = ("value", "baseline_value", "delta", "p", "n_pairs", "n_up", "n_down", "changed_share")
    return {"metric": metric.name, "mde": least, "within": inside} | {key: row[key] for key in shown}


def smallest(row: dict, metric: Metric, found: dict[str, Verdicts]) -> float | None:
    """The smallest difference that is found at the noise of the A/A run; None for graded outcomes."""
    if metric.name == "utility":
        return None
    noise = compare(found["noise"], found["full"], metric, Settings())
    floor = (noise["n_up"] + noise["n_down"]) / noise["n_pairs"]
    return mde(int(row["n_effective"] + 1e-9), floor, Settings().alpha)
