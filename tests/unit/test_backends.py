"""Methods of other environments, as far as they go without them: packing, formats, refusals, and the script's job."""

import sys

import pytest
import torch

from bitsafe.artefacts.artefact import read_layers, with_codes
from bitsafe.artefacts.check import prove
from bitsafe.artefacts.checkpoint import (
    copy_side_files,
    decoder_linears,
    read_config,
    read_tensors,
    write_config,
    write_tensors,
)
from bitsafe.artefacts.formats.words import pack_words, unpack_words
from bitsafe.artefacts.grids import affine_grid
from bitsafe.errors import CellError, UserError
from bitsafe.files import read_json, sha256_folder
from bitsafe.matrix import environments
from bitsafe.matrix.tables import ROOT, Tables
from bitsafe.quantizers import awq_autoawq, awq_gptqmodel, gptq_autogptq, gptq_gptqmodel
from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.shared import environment

MODULES = {m.__name__.rpartition(".")[2]: m for m in (gptq_gptqmodel, awq_gptqmodel, awq_autoawq, gptq_autogptq)}


# --- packing, against words worked by hand ---


def test_words_by_hand():
    assert pack_words(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]]), 4).tolist() == [[0x87654321 - 2**32]]
    assert pack_words(torch.tensor([[1, 0, 2, 255]]), 8).tolist() == [[0xFF020001 - 2**32]]
    assert pack_words(torch.tensor([[3] + [0] * 14 + [1]]), 2).tolist() == [[0x40000003]]
    # at 3 bits code 10 begins at bit 30: two bits in the first word, its high one in the second; code 21 at bit 63
    codes = torch.zeros(1, 32, dtype=torch.uint8)
    codes[0, 10], codes[0, 21] = 0b101, 0b110
    assert pack_words(codes, 3).tolist() == [[0b01 << 30, 0b1, 0b11]]


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_words_against_plain_integers(bits):
    codes = torch.randint(0, 2**bits, (3, 64), generator=torch.Generator().manual_seed(bits), dtype=torch.uint8)
    for row, words in zip(codes.tolist(), pack_words(codes, bits).tolist()):
        whole = sum(code << (bits * k) for k, code in enumerate(row))
        assert [word % 2**32 for word in words] == [(whole >> (32 * k)) % 2**32 for k in range(2 * bits)]
    assert torch.equal(unpack_words(pack_words(codes, bits), bits), codes)


def test_codes_that_fill_no_whole_words_are_refused():
    with pytest.raises(ValueError, match="30 codes of 3 bits do not fill"):
        pack_words(torch.zeros(1, 30), 3)
    with pytest.raises(ValueError, match="no whole number of 3-bit codes"):
        unpack_words(torch.zeros(1, 4, dtype=torch.int32), 3)


# --- the two formats, written here as their libraries write them ---


def gptq_parts(codes, grid, less):
    zero_point = (grid.zero_point.to(torch.int16) - less) % 2**grid.bits
    return {
        "qweight": pack_words(codes, grid.bits).T,
        "qzeros": pack_words(zero_point.T, grid.bits),
        "scales": grid.scale.T,
        "g_idx": (torch.arange(codes.shape[1]) // grid.group_size).int(),
    }


def awq_parts(codes, grid, less):
    order = [0, 2, 4, 6, 1, 3, 5, 7] if grid.bits == 4 else list(range(8))
    mixed = [torch.cat([part.T[:, k + j : k + j + 1] for k in range(0, len(part), 8) for j in order], 1)
             for part in (codes, grid.zero_point)]  # fmt: skip
    return {
        "qweight": pack_words(mixed[0], grid.bits),
        "qzeros": pack_words(mixed[1], grid.bits),
        "scales": grid.scale.T,
    }


def written(source, out, bits, parts, config, less=0):
    """An artefact by round to nearest in a foreign format, and its grids and codes."""
    tensors, expected = read_tensors(source), {}
    for name in decoder_linears(source):
        weight = tensors.pop(f"{name}.weight")
        grid = affine_grid(weight, bits, 64)
        expected[name] = grid, grid.nearest(weight)
        tensors |= {f"{name}.{part}": t for part, t in parts(expected[name][1], grid, less).items()}
    out.mkdir()
    write_tensors(out, tensors)
    write_config(source, out, quantization_config={"bits": bits, "group_size": 64, **config})
    copy_side_files(source, out)
    return expected


FORMATS = {
    "gptq": (gptq_parts, {"quant_method": "gptq", "checkpoint_format": "gptq", "sym": False}, 1),
    "gptq_old": (gptq_parts, {"quant_method": "gptq", "sym": False}, 1),
    "gptq_v2": (gptq_parts, {"quant_method": "gptq", "checkpoint_format": "gptq_v2", "sym": False}, 0),
    "awq": (awq_parts, {"quant_method": "awq", "version": "gemm", "zero_point": True}, 0),
}


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("layout", FORMATS)
def test_a_foreign_format_is_read_and_written_bit_by_bit(layout, bits, tiny_llama, tmp_path, conversations):
    parts, config, less = FORMATS[layout]
    expected = written(tiny_llama, tmp_path / "made", bits, parts, config, less)
    layers = read_layers(tmp_path / "made")
    assert layers.keys() == expected.keys()
    for name, (grid, codes) in expected.items():
        assert torch.equal(layers[name].codes, codes)
        assert torch.equal(layers[name].grid.scale, grid.scale)
        assert torch.equal(layers[name].grid.zero_point, grid.zero_point)
    with_codes(tmp_path / "made", tmp_path / "same", {name: codes for name, (_, codes) in expected.items()})
    assert sha256_folder(tmp_path / "same") == sha256_folder(tmp_path / "made")
    other = {name: codes.flip(1) for name, (_, codes) in expected.items()}
    with_codes(tmp_path / "made", tmp_path / "other", other)
    assert all(torch.equal(layer.codes, other[name]) for name, layer in read_layers(tmp_path / "other").items())
    proof = prove(tmp_path / "made", tiny_llama, {}, conversations, bits=bits)
    assert proof["effective_bits"] == bits + (16 + bits) / 64


def test_a_zero_point_of_nought_is_stored_as_all_ones(tiny_llama, tmp_path):
    written(tiny_llama, tmp_path / "made", 4, gptq_parts, FORMATS["gptq"][1], 1)
    name = "model.layers.0.mlp.up_proj"
    tensors = read_tensors(tmp_path / "made")
    tensors[f"{name}.qzeros"].fill_(-1)
    write_tensors(tmp_path / "made", tensors)
    assert torch.all(read_layers(tmp_path / "made")[name].grid.zero_point == 0)


def test_a_symmetric_grid_has_no_zero_points_to_count(tiny_llama, tmp_path):
    config = {"quant_method": "gptq", "sym": True}
    written(tiny_llama, tmp_path / "made", 4, gptq_parts, config, 1)
    tensors = read_tensors(tmp_path / "made")
    for name in [n for n in tensors if n.endswith("qzeros")]:
        tensors[name].fill_(0x77777777)
    write_tensors(tmp_path / "made", tensors)
    assert all(layer.grid.symmetric and layer.extra_bits == layer.grid.scale.numel() * 16
               for layer in read_layers(tmp_path / "made").values())  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint_format": "marlin"}, "checkpoint_format 'marlin' at 4 bits"),
        ({"dynamic": {"x": {"bits": 8}}}, "dynamic"),
        ({"bits": 5}, "at 5 bits"),
    ],
)
def test_variants_that_are_not_read_are_named(changes, message, tiny_llama, tmp_path):
    written(tiny_llama, tmp_path / "made", 4, gptq_parts, FORMATS["gptq"][1] | {}, 1)
    config = read_config(tmp_path / "made")["quantization_config"]
    write_config(tiny_llama, tmp_path / "made", quantization_config=config | changes)
    with pytest.raises(CellError, match=message):
        read_layers(tmp_path / "made")


def test_groups_out_of_order_are_refused(tiny_llama, tmp_path):
    written(tiny_llama, tmp_path / "made", 4, gptq_parts, FORMATS["gptq"][1], 1)
    tensors = read_tensors(tmp_path / "made")
    tensors["model.layers.0.mlp.up_proj.g_idx"] = tensors["model.layers.0.mlp.up_proj.g_idx"].flip(0)
    write_tensors(tmp_path / "made", tensors)
    with pytest.raises(CellError, match=r"up_proj\.g_idx: groups that are not 64 inputs in order"):
        read_layers(tmp_path / "made")


def test_a_version_of_awq_for_another_kernel_is_refused(tiny_llama, tmp_path):
    written(tiny_llama, tmp_path / "made", 4, awq_parts, FORMATS["awq"][1] | {"version": "gemv"}, 0)
    with pytest.raises(CellError, match="version 'gemv' at 4 bits: not read here"):
        read_layers(tmp_path / "made")


# --- what a person can get wrong, before any work ---


def job(source, out, conversations, **changes):
    return QuantizeJob(source, out, **({"bits": 4, "conversations": conversations} | changes))


@pytest.mark.parametrize("method", MODULES)
def test_refusals(method, tiny_llama, tmp_path, conversations, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "none")
    quantize, name = MODULES[method].quantize, Tables().rows("methods")[method].environment
    with pytest.raises(UserError, match="bits: 5 is not supported here"):
        quantize(job(tiny_llama, tmp_path, conversations, bits=5))
    with pytest.raises(UserError, match=r"params\.group_sise: unknown"):
        quantize(job(tiny_llama, tmp_path, conversations, params={"group_sise": 32}))
    with pytest.raises(UserError, match="group_size: 160 does not divide"):
        quantize(job(tiny_llama, tmp_path, conversations, params={"group_size": 160}))
    with pytest.raises(UserError, match="needs a risk set"):
        quantize(job(tiny_llama, tmp_path, []))
    with pytest.raises(UserError, match=f".envs/{name}: not installed, .* make env NAME={name}$"):
        quantize(job(tiny_llama, tmp_path, conversations))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", MODULES)
def test_a_row_names_its_environment_and_the_environment_its_script(method):
    row = Tables().rows("methods")[method]
    assert (ROOT / f"envs/{row.environment}.lock.txt").exists()
    assert (environment.SCRIPTS / f"{row.environment}.py").exists()
    assert f'"{row.environment}"' in (ROOT / f"workflow/bitsafe/quantizers/{method}.py").read_text()


def test_an_unknown_environment_is_named():
    with pytest.raises(UserError, match="environment: 'gptqmodle'; did you mean 'gptqmodel'"):
        environments.interpreter("gptqmodle")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_autogptq_says_that_it_needs_a_gpu(tiny_llama, tmp_path, conversations):
    with pytest.raises(UserError, match="on a CUDA GPU only and there is none: use gptq_gptqmodel"):
        gptq_autogptq.quantize(job(tiny_llama, tmp_path, conversations))
    assert not list(tmp_path.iterdir())


def test_autoawq_takes_no_whole_rows(tiny_llama, tmp_path, conversations):
    with pytest.raises(UserError, match="group_size: -1: AutoAWQ needs a number"):
        awq_autoawq.quantize(job(tiny_llama, tmp_path, conversations, params={"group_size": -1}))


# --- the script and its job ---

SCRIPT = """
import json, sys
from pathlib import Path
job = json.loads(Path(sys.argv[1]).read_text())
assert str(Path(__file__).parent) not in sys.path and str(Path.cwd()) not in sys.path, sys.path
import torch
from safetensors.torch import load_file, save_file
out = Path(job["out"]); out.mkdir()
tensors = load_file(Path(job["source"]) / "model.safetensors")
save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, out / "model.safetensors")
config = {"quant_method": "gptq", "bits": job["bits"], "meta": {"quantizer": ["x:1"], "offload_to_disk_path": job["out"]}}
(out / "config.json").write_text(json.dumps({"quantization_config": config, "_name_or_path": job["source"]}))
Path(job["facts"]).write_text(json.dumps({"rows": len(job["rows"]), "extra": job["extra"]}))
"""  # noqa: E501


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """An environment `gptqmodel` that is our own interpreter, and a function that sets its script."""
    folder = tmp_path / "envs/gptqmodel"
    (folder / "bin").mkdir(parents=True)
    (folder / ".installed-from-lock").touch()
    (folder / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "bin/python").chmod(0o755)
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "envs")
    monkeypatch.setattr(environment, "SCRIPTS", tmp_path)
    return (tmp_path / "gptqmodel.py").write_text


def test_a_script_gets_token_ids_and_its_checkpoint_is_brought_home(fake, tiny_llama, tmp_path, conversations):
    fake(SCRIPT)
    (tmp_path / "out").mkdir()
    facts = environment.quantize_elsewhere(job(tiny_llama, tmp_path / "out", conversations), "gptqmodel", {"extra": 7})
    assert (facts["rows"], facts["extra"], facts["calibration_rows"]) == (24, 7, 24)
    assert facts["calibration_tokens"] > 500
    assert not (tmp_path / "out/.work").exists()
    assert str(tmp_path) not in (tmp_path / "out/config.json").read_text()
    config = read_json(tmp_path / "out/config.json")
    assert config["quantization_config"] == {"quant_method": "gptq", "bits": 4, "meta": {"quantizer": ["x:1"]}}
    assert {k: v for k, v in config.items() if k != "quantization_config"} == read_config(tiny_llama)
    assert read_tensors(tmp_path / "out").keys() == read_tensors(tiny_llama).keys()  # its copy of the tied head is left
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tiny_llama / name).read_bytes()


def test_a_script_that_fails_stops_the_cell_with_its_last_lines(fake, tiny_llama, tmp_path, conversations):
    fake("print('on its way'); raise SystemExit('out of luck')")
    (tmp_path / "out").mkdir()
    with pytest.raises(CellError, match=r"gptqmodel\.py ended with 1:\n(.*\n)*out of luck"):
        environment.quantize_elsewhere(job(tiny_llama, tmp_path / "out", conversations), "gptqmodel", {})
    assert not list((tmp_path / "out").iterdir())


def test_a_config_for_older_transformers():
    new = {"dtype": "float16", "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}, "hidden_size": 8}
    assert environment.for_old_transformers(new) == {
        "torch_dtype": "float16", "rope_theta": 100000.0, "hidden_size": 8,
    }  # fmt: skip
    assert "rope_parameters" in new, "the source's own is left alone"
    scaled = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}
    expected = {"rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    assert environment.for_old_transformers(scaled) == expected
    with pytest.raises(UserError, match="rope_parameters: one set a kind of layer"):
        environment.for_old_transformers({"rope_parameters": {"full_attention": {"rope_type": "default"}}})
