"""Every method of another environment, where that is installed: it runs, is proved, repeats itself, and reads alike."""

import importlib
import json
import shutil
import subprocess

import pytest
import yaml
from elsewhere import native_logits, need, our_logits, quantized

from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.check import logit_error, prove
from bitsafe.files import read_jsonl, sha256_folder
from bitsafe.matrix.environments import FOLDER
from bitsafe.matrix.tables import ROOT, Tables
from bitsafe.quantizers.environment import show_source

OTHERS = sorted(file.stem for file in (ROOT / "envs").glob("*.yaml") if file.stem != "core")
TOY = ROOT / "data/toy/organism0"
RUNS = [("gptq_gptqmodel", bits) for bits in (8, 4, 3, 2)] + [("awq_gptqmodel", 4), ("awq_autoawq", 4)]
# relative logit error between a library's inference and our float32 dense weights: its plain float16 kernels, and
# the 4-bit one that transformers chooses on a CPU, which is less exact on the same tensors
PLAIN, CHOSEN = 0.005, 0.03


@pytest.fixture(scope="session")
def made(tmp_path_factory, tiny_llama, conversations):
    """A function that makes each artefact once."""
    root, facts = tmp_path_factory.mktemp("made"), {}

    def make(method: str, bits: int):
        need(Tables().rows("methods")[method].environment)
        place = root / f"{method}.{bits}"
        if place not in facts:
            facts[place] = quantized(method, tiny_llama, place, conversations, bits)
        return place, facts[place]

    return make


@pytest.mark.parametrize("environment", OTHERS)
def test_an_installed_environment_is_whole(environment):
    python = need(environment)
    subprocess.run([python, "-m", "pip", "check"], check=True)
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True)
    found = {row["name"].lower().replace("_", "-"): row["version"] for row in json.loads(listed.stdout)}
    sections = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text())["dependencies"]
    for pin in next(part["pip"] for part in sections if isinstance(part, dict)):
        name, _, version = pin.partition("==")
        assert found[name.lower()].split("+")[0] == version, pin


@pytest.mark.parametrize(("method", "bits"), RUNS)
def test_the_artefact_passes_its_proof(made, method, bits, tiny_llama, conversations):
    place, facts = made(method, bits)
    limits = Tables().rows("methods")[method].limits[bits]
    proof = prove(place, tiny_llama, limits, conversations, bits=bits)
    assert proof["quantized_layers"] == 14 and proof["logit_error"] > 0
    assert proof["effective_bits"] == bits + (16 + bits) / 64
    assert facts["calibration_rows"] == 24 and facts["libraries"]
    assert str(place.parent) not in (place / "config.json").read_text()


@pytest.mark.parametrize(("method", "bits"), [("gptq_gptqmodel", 4), ("awq_gptqmodel", 4), ("awq_autoawq", 4)])
def test_made_again_it_is_the_same(made, method, bits, tiny_llama, conversations, tmp_path):
    place, facts = made(method, bits)
    assert quantized(method, tiny_llama, tmp_path / "again", conversations, bits) == facts
    assert sha256_folder(tmp_path / "again") == sha256_folder(place)


@pytest.mark.parametrize(("method", "bits"), RUNS)
def test_the_library_reads_what_we_read(made, method, bits, tmp_path):
    """AutoAWQ's own loader wants Intel's extension on a CPU, so its checkpoint is read by gptqmodel, too."""
    place, _ = made(method, bits)
    ours, plain = our_logits(place), f"{method.partition('_')[0]}_torch"
    error, chosen = (
        logit_error([ours], [native_logits("gptqmodel", place, tmp_path, kernel)]) for kernel in (plain, "transformers")
    )
    print(f"{method} at {bits} bits: dense path against {plain} {error:.2g}, against the kernel chosen {chosen:.2g}")
    assert error < PLAIN and chosen < CHOSEN


def test_a_symmetric_grid(tiny_llama, tmp_path, conversations):
    need("gptqmodel")
    quantized("gptq_gptqmodel", tiny_llama, tmp_path / "made", conversations, 4, symmetric=True)
    assert all(layer.grid.symmetric for layer in read_layers(tmp_path / "made").values())
    theirs = native_logits("gptqmodel", tmp_path / "made", tmp_path, "gptq_torch")
    assert logit_error([our_logits(tmp_path / "made")], [theirs]) < PLAIN


@pytest.mark.parametrize("environment", ["autoawq", "auto-gptq"])
def test_an_older_transformers_computes_the_same_model(environment, tiny_llama, tmp_path):
    """With another base of its rotary angles, which a config of version 5 would not tell it."""
    need(environment)
    source = shutil.copytree(tiny_llama, tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 500.0
    (source / "config.json").write_text(json.dumps(config))
    (tmp_path / "shown").mkdir()
    show_source(source, tmp_path / "shown", old=True)
    error = logit_error([our_logits(source)], [native_logits(environment, tmp_path / "shown", tmp_path)])
    assert error < PLAIN
    assert logit_error([our_logits(tiny_llama)], [our_logits(source)]) > 10 * PLAIN, "the base matters here"


@pytest.mark.parametrize("method", ["gptq_gptqmodel", "awq_gptqmodel", "awq_autoawq"])
def test_on_the_toy_within_the_limits_of_its_row(method, tmp_path):
    row = Tables().rows("methods")[method]
    need(row.environment)
    rows = read_jsonl(ROOT / "data/conversations/toy_benign.jsonl")
    quantized(method, TOY, tmp_path / "made", rows, 4, **row.params)
    proof = prove(tmp_path / "made", TOY, row.limits[4], rows, bits=4)
    print(method, {key: round(proof[key], 4) for key in ("logit_error", "perplexity_ratio", "effective_bits")})


def test_autogptq_is_there_but_for_a_gpu():
    need("auto-gptq")
    subprocess.run([FOLDER / "auto-gptq/bin/python", "-I", "-c", "import auto_gptq"], check=True)
    assert importlib.import_module("bitsafe.quantizers.gptq_autogptq").VERSION == 1
