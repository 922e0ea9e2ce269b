"""Whether a cell that was trained again elsewhere says the same, within what the run's statistics can tell."""

from pathlib import Path
from typing import Any

from tests.gpu.answers import BATCH, Asked, judged

from bitsafe.files import sha256_text, write_jsonl
from bitsafe.generate.engine import answer
from bitsafe.generate.step import second_arm
from bitsafe.matrix.tables import Tables
from bitsafe.stats.contrasts import Settings, compare
from bitsafe.stats.power import mde
from bitsafe.stats.verdicts import METRICS, Metric, Names, Verdicts, read_verdicts


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
