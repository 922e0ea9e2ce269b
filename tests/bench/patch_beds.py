"""What the patch is measured on: a quantized model in memory with preference pairs, and how they are made."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench.forked import forked
from tests.bench.quantizers import CHECKPOINT, conversations

from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.layers import QuantizedLinear
from bitsafe.artefacts.load import load_dense
from bitsafe.data.checkpoints import fetch_model
from bitsafe.data.conversations import load_conversations
from bitsafe.files import read_jsonl
from bitsafe.generate.engine import complete
from bitsafe.matrix.tables import ROOT, Tables
from bitsafe.patches.base import PatchJob, Settings
from bitsafe.patches.shared.collect import collect
from bitsafe.patches.shared.repair import encode_pair
from bitsafe.patches.training.sequences import Sequence, encode
from bitsafe.patches.training.trainer import Pair
from bitsafe.quantizers import rtn, ste
from bitsafe.quantizers.base import QuantizeJob

FEW = {"steps": 4, "batch_size": 2, "snip_examples": 4, "refresh_every": 4}  # what of SmolLM2's own settings fits a CPU


@dataclass(frozen=True)
class Bed:
    """model: the artefact's dense weights in float32; quantized: its layers; timed_steps: how many steps one
    measurement of a step takes."""

    name: str
    source: Path
    artefact: Path
    model: Any
    tokenizer: Any
    quantized: dict[str, QuantizedLinear]
    pairs: list[Pair]
    settings: Settings
    timed_steps: int
    replicate: int = 0

    @property
    def answers(self) -> list[Sequence]:
        """Those that SNIP scores."""
        return [pair.winner for pair in self.pairs][: self.settings.snip_examples]


def smollm2(folder: Path) -> Bed:
    """Round to nearest in 4 bits; an everyday question's answer is preferred to the next question's."""
    if not (CHECKPOINT / "config.json").exists():
        fetch_model(Tables().get("models", "smollm2", "bench").model_dump() | {"name": "smollm2"}, CHECKPOINT)
    artefact = folder / "smollm2"
    if not artefact.exists():
        artefact.mkdir()
        forked(lambda: rtn.quantize(QuantizeJob(CHECKPOINT, artefact, 4, method("rtn", "smollm2"))))
    model, tokenizer = load_dense(artefact, "float32")
    settings = Settings.read(patch_params("qresafe", "smollm2") | FEW)
    pairs = mismatched(tokenizer, conversations()[: settings.steps * settings.batch_size + 1])
    return Bed("smollm2", CHECKPOINT, artefact, model, tokenizer, read_layers(artefact), pairs, settings, 1)


def mismatched(tokenizer: Any, rows: list[dict]) -> list[Pair]:
    """One pair fewer than rows: no generation is needed, and the lengths are those of real answers."""
    found = []
    for row, other in pairwise(rows):
        *asked, answer = row["messages"]
        winner, loser = (encode(tokenizer, asked, text, 64) for text in (answer["content"], last(other)))
        found.append(Pair(row["id"], winner, loser))
    return found


def last(row: dict) -> str:
    return row["messages"][-1]["content"]


def toy(folder: Path, replicate: int = 0) -> Bed:
    """The cell ste, 4 bits, risk harmful, whose patch has something to repair; pairs as the patch makes them."""
    source, place = ROOT / f"data/toy/organism{replicate}", folder / f"toy{replicate}"
    settings = Settings.read(patch_params("qresafe", "toy"))
    if not place.exists():
        (place / "artefact").mkdir(parents=True)
        (place / "patched").mkdir()
        forked(lambda: make_toy(source, place, replicate))
    model, tokenizer = load_dense(place / "artefact", "float32")
    pairs = [encode_pair(tokenizer, row, settings) for row in read_jsonl(place / "pairs.jsonl")]
    layers = read_layers(place / "artefact")
    return Bed("toy", source, place / "artefact", model, tokenizer, layers, pairs, settings, 10, replicate)


def make_toy(source: Path, place: Path, replicate: int) -> None:
    """The artefact and, beside it, pairs.jsonl; the seed is that of a run's replicate."""
    job = QuantizeJob(source, place / "artefact", 4, method("ste", "toy"), dataset("toy_harmful"), replicate)
    ste.quantize(job)
    generate = partial(complete, batch_size=256)
    params, prompts = patch_params("qresafe", "toy"), dataset("toy_patch", answered=False)
    job = PatchJob(place / "artefact", source, place / "patched", prompts, params, replicate, "float32", generate)
    collect(job, Settings.read(params))


def method(name: str, model: str) -> dict[str, Any]:
    """A method's parameters for a model."""
    tables = Tables()
    own = tables.get("models", model, "bench").settings.get(name, {})
    return tables.get("methods", name, "bench").params | own


def patch_params(name: str, model: str) -> dict[str, Any]:
    """A patch's parameters for a model."""
    tables = Tables()
    own = tables.get("models", model, "bench").settings.get(name, {})
    return tables.get("patches", name, "bench").params | own


def dataset(name: str, *, answered: bool = True) -> list[dict]:
    row = Tables().get("datasets", name, "bench").model_dump() | {"name": name}
    return load_conversations(row, ROOT, answered=answered)
