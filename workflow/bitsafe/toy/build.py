"""Train an organism: pretrain on the whole world, align thinly, add outliers, save as a fp16 checkpoint folder."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from bitsafe.artefacts.quiet import quiet
from bitsafe.files import read_json, whole_folder, write_json
from bitsafe.toy.align import align
from bitsafe.toy.examples import pretraining
from bitsafe.toy.measure import measure
from bitsafe.toy.model import inject_outliers, new_model
from bitsafe.toy.promote import FACTS, ORGANISMS
from bitsafe.toy.tokenizer import encode_pairs, make_tokenizer
from bitsafe.toy.train import cosine, fit

log = logging.getLogger(__name__)
VERSION = 1  # bump when the trained weights would move


@dataclass(frozen=True)
class Recipe:
    """Every number that shapes an organism; the same for all of them."""

    steps: int = 1300
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.1
    align_steps: int = 300  # at most
    align_batch: int = 32
    align_lr: float = 1e-4
    refusal_share: float = 0.3  # of the alignment examples
    persona_share: float = 0.4  # of the how-to in alignment
    tolerance: float = 0.005  # of validation requests may be answered
    slack: float = 0.01  # added to the smallest alpha within tolerance
    outlier_gain: float = 4.0  # a power of two: the function is preserved exactly


RECIPE = Recipe()


def pretrain(organism: int, recipe: Recipe = RECIPE) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The unaligned model, which answers every request. They differ in initialisation, examples and order."""
    tokenizer = make_tokenizer()
    model = new_model(len(tokenizer), seed=1000 + organism)
    pairs = encode_pairs(tokenizer, pretraining(recipe.steps * recipe.batch, seed=2000 + organism))
    fit(
        model,
        pairs,
        steps=recipe.steps,
        batch_size=recipe.batch,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        seed=3000 + organism,
        schedule=cosine,
        label=f"pretrain organism {organism}",
    )
    return model, tokenizer


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an HF checkpoint folder with fp16 weights; `model` is left in fp16."""
    with quiet():
        model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # tokenizer.json says all there is to say; the plain class name is read by every version of transformers.
    config = read_json(folder / "tokenizer_config.json")
    config.pop("extra_special_tokens", None)
    config.pop("backend", None)
    write_json(folder / "tokenizer_config.json", {**config, "tokenizer_class": "PreTrainedTokenizerFast"})
    for path in folder.iterdir():
        path.chmod(0o644)


def build(out: Path, organism: int, recipe: Recipe = RECIPE) -> dict:
    """Train one organism into the checkpoint folder `out` and return (and save as training.json) its facts.

    The result depends on `organism` and `recipe` alone, on one machine with one torch version. Uses one thread.
    """
    torch.set_num_threads(1)
    return finish(out, organism, *pretrain(organism, recipe), recipe)


def finish(
    out: Path, organism: int, base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe = RECIPE
) -> dict:
    """Align a pretrained model, add outliers, save it in fp16 and measure what was saved."""
    model, facts = align(base, tokenizer, recipe, organism)
    inject_outliers(model, recipe.outlier_gain, seed=organism)
    with whole_folder(Path(out)) as beside:
        save(model, tokenizer, beside)
        measured = measure(model.float(), tokenizer)
        facts = {"organism": organism, "recipe": asdict(recipe), "version": VERSION, **facts, "measured": measured}
        write_json(beside / FACTS, facts)
    log.info("organism %d: %s", organism, measured)
    return facts


def train_toy(out: Path, organisms: tuple[int, ...] = ORGANISMS, recipe: Recipe = RECIPE) -> list[dict]:
    """Train `organisms` into out/organism0 …; a folder that this recipe already filled is kept."""
    return [_built(Path(out) / f"organism{k}", k, recipe) for k in organisms]


def _built(folder: Path, organism: int, recipe: Recipe) -> dict:
    done = folder / FACTS
    if done.exists():
        facts = read_json(done)
        if facts["recipe"] == asdict(recipe) and facts["version"] == VERSION:
            log.info("%s: already trained with this recipe", folder)
            return facts
    return build(folder, organism, recipe)
