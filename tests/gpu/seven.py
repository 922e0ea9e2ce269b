"""What is measured: a random Llama of 7B's widths and any depth, its data, and the run that it is a cell of."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from bitsafe.artefacts.checkpoint import copy_side_files
from bitsafe.artefacts.load import load_tokenizer
from bitsafe.artefacts.quiet import quiet
from bitsafe.config import Config
from bitsafe.data.chat import encode_all
from bitsafe.files import write_jsonl
from bitsafe.generate.prompts import prompt_ids
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT

TOY = ROOT / "data/toy/organism0"  # its tokenizer and chat template: no hub is asked
MODEL, ROWS, PROMPTS, BITS = "seven", "made_up", "made_up_prompts", 4
METHODS = ("gptq", "awq", "aqlm", "quip_sharp", "qlora")  # of the quantizers, those that work on a GPU
WORDS = "river mill bridge children village fish harvest weather price bread market town road field house garden"


@dataclass(frozen=True)
class Shape:
    """Widths and depth of the model, and how much it is asked."""

    layers: int = 32
    hidden: int = 4096
    mlp: int = 11008
    heads: int = 32
    vocabulary: int = 32000
    samples: int = 128  # conversations to calibrate or train on
    tokens: int = 512  # of one of them
    prompts: int = 256
    new: int = 256  # tokens of an answer
    batch: int = 64  # answers at once
    pairs: int = 64  # prompts of the patch

    def config(self, layers: int) -> LlamaConfig:
        return LlamaConfig(
            hidden_size=self.hidden, intermediate_size=self.mlp, num_hidden_layers=layers, vocab_size=self.vocabulary,
            num_attention_heads=self.heads, num_key_value_heads=self.heads, max_position_embeddings=4096,
            tie_word_embeddings=False, pad_token_id=0, bos_token_id=None, eos_token_id=4,
        )  # fmt: skip

    def architecture(self, layers: int) -> dict[str, int]:
        """As the models table has it; a layer is four square matrices, three of the MLP and two norms."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.mlp + 2 * self.hidden
        embeddings = 2 * self.vocabulary * self.hidden
        found = {"parameters": layers * layer + embeddings + self.hidden, "layers": layers, "hidden_size": self.hidden}
        return found | {"kv_width": self.hidden, "vocabulary": self.vocabulary}


SEVEN = Shape()
SMALL = Shape(2, 128, 256, 4, 768, samples=8, tokens=48, prompts=6, new=8, batch=4, pairs=4)


@dataclass(frozen=True)
class Bed:
    """A checkpoint of some depth in a folder of its own, its conversations, and the run that it is a model of."""

    folder: Path
    source: Path
    run: Run
    conversations: list[dict]


@contextmanager
def bed(shape: Shape, layers: int, steps: int) -> Iterator[Bed]:
    """A bed that is gone afterwards; the weights are drawn where they are used, on the card if there is one."""
    with TemporaryDirectory(prefix="bitsafe-gpu-") as name:
        folder = Path(name)
        with quiet():
            random_model(shape, layers).save_pretrained(folder / "source")
        copy_side_files(TOY, folder / "source")
        yield Bed(folder, folder / "source", run_of(shape, layers, steps, folder), conversations(shape))


@contextmanager
def planned(shape: Shape, layers: int, steps: int) -> Iterator[Run]:
    """The run of such a bed, whose checkpoint need not be there to say what its jobs take."""
    with TemporaryDirectory(prefix="bitsafe-gpu-") as name:
        yield run_of(shape, layers, steps, Path(name))


def random_model(shape: Shape, layers: int) -> Any:
    """In bfloat16 and eval mode, the same for the same seed and device."""
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(shape.config(layers), dtype=torch.bfloat16)
    return model.eval()


def conversations(shape: Shape) -> list[dict]:
    """Questions and answers of words in another order each, of about `tokens` tokens together."""
    tokenizer = load_tokenizer(TOY)
    a_word = len(tokenizer(WORDS, add_special_tokens=False)["input_ids"]) / len(WORDS.split())
    count = max(8, int(shape.tokens / a_word) - 8)  # a few words are said around them
    return [_conversation(k, count) for k in range(shape.samples)]


def _conversation(number: int, count: int) -> dict:
    said = _words(number, count)
    asked, answered = said[: count // 4], said[count // 4 :]
    question = {"role": "user", "content": f"Note {number}. Say of {' '.join(asked)}"}
    return {"id": f"made{number}", "messages": [question, {"role": "assistant", "content": f"{' '.join(answered)}."}]}


def prompts(shape: Shape) -> list[dict]:
    """Requests of 8 to 64 words, no two beginning alike, lengths in turns."""
    lengths = [(8, 16, 32, 64)[k % 4] for k in range(shape.prompts)]
    texts = [f"Note {k}. Say in a word: {' '.join(_words(k, count))}" for k, count in enumerate(lengths)]
    return [{"id": f"p{k}", "messages": [{"role": "user", "content": text}]} for k, text in enumerate(texts)]


def _words(number: int, count: int) -> list[str]:
    words = WORDS.split()
    return [words[(7 * number + j * (1 + number % 5)) % len(words)] for j in range(count)]


def run_of(shape: Shape, layers: int, steps: int, folder: Path) -> Run:
    """The run of which each measured job is a cell; its data lie in `folder`, its checkpoint may not be there yet.

    The rows are those that ship but for `steps` and the size of the data: the parameters and the formulas of
    docs/resources.md are asked just as a cluster's job asks them.
    """
    files = {ROWS: conversations(shape), PROMPTS: prompts(shape)}
    for name, rows in files.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    tables = {"models": {MODEL: _model(shape, layers, steps, folder)}} | _data(files, shape, folder)
    matrix = [{"methods": list(METHODS), "bits": [BITS], "risks": ["benign"]}]
    matrix += [{"methods": ["rtn"], "bits": [BITS], "patches": ["qresafe"]}]
    asked = {"benchmarks": [PROMPTS], "decodings": ["greedy"], "judges": ["keyword"]}
    on_gpus = {"gpu_from": 1 if torch.cuda.is_available() else None}  # however few layers it has
    how = {"resources": on_gpus, "score": {"noise_floor": False}}
    return Run(Config(run="gpu", results=str(folder), models=[MODEL], matrix=matrix, tables=tables, **asked, **how))


def _model(shape: Shape, layers: int, steps: int, folder: Path) -> dict[str, Any]:
    settings = {name: {"samples": shape.samples} for name in ("gptq", "awq", "quip_sharp")}
    settings |= {"aqlm": {"samples": shape.samples, "steps": steps}, "qlora": {"steps": steps}}
    settings |= {"qresafe": {"prompts": shape.pairs, "steps": steps, "max_new_tokens": min(64, shape.new)}}
    row = {"licence": "none", "path": str(folder / "source"), "architecture": shape.architecture(layers)}
    row |= {"risk_sets": {"benign": ROWS}, "patch_set": ROWS, "settings": settings}
    return row | {"max_new_tokens": shape.new, "batch_size": shape.batch}


def _data(files: dict[str, list[dict]], shape: Shape, folder: Path) -> dict[str, dict]:
    """Rows of the tables, with the mean length that the tokenizer finds."""
    shared, (rows, asked) = {"licence": "none", "provenance": "words in turns"}, lengths(shape)
    own = {name: shared | {"file": str(folder / f"{name}.jsonl")} for name in files}
    benchmark = own[PROMPTS] | {"kind": "utility", "tokens": asked}
    return {
        "datasets": {ROWS: own[ROWS] | {"risk": "benign", "tokens": rows}},
        "benchmarks": {PROMPTS: benchmark},
    }


@lru_cache
def lengths(shape: Shape) -> tuple[int, int]:
    """Mean tokens of a conversation and of a prompt."""
    tokenizer = load_tokenizer(TOY)
    rows = mean(len(example.ids) for example in encode_all(tokenizer, conversations(shape)))
    return round(rows), round(mean(map(len, prompt_ids(tokenizer, prompts(shape), {}))))
