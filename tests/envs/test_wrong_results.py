"""Libraries that answer wrongly without a word are caught by the artefact's proof."""

import pytest
from elsewhere import need

from bitsafe.artefacts.check import prove
from bitsafe.artefacts.checkpoint import copy_side_files
from bitsafe.artefacts.load import load_model, load_tokenizer
from bitsafe.artefacts.quiet import quiet
from bitsafe.data.chat import encode_all
from bitsafe.errors import CellError
from bitsafe.files import read_json, read_jsonl, write_json
from bitsafe.matrix.tables import ROOT, Tables
from bitsafe.quantizers.base import QuantizeJob
from bitsafe.quantizers.shared.calibration import calibration_batches
from bitsafe.quantizers.shared.environment import quantize_elsewhere
from bitsafe.quantizers.shared.llm_compressor import run_modifiers

TOY = ROOT / "data/toy/organism0"


def limits(method: str, bits: int) -> dict:
    return Tables().rows("methods")[method].limits[bits]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gptqmodels_awq_at_8_bits(dtype, tiny_llama, tmp_path, conversations):
    """In bfloat16, which it takes on a CPU unless told otherwise, it is wrong; in float16 it is right."""
    need("gptqmodel")
    (tmp_path / "made").mkdir()
    job = QuantizeJob(tiny_llama, tmp_path / "made", 8, {}, conversations)
    quantize_elsewhere(job, "gptqmodel", {"method": "awq", "dtype": dtype})
    measured = prove(tmp_path / "made", tiny_llama, {}, conversations, bits=8)
    print(f"gptqmodel's AWQ at 8 bits in {dtype}:", measured["logit_error"], measured["perplexity_ratio"])
    if dtype == "float16":
        prove(tmp_path / "made", tiny_llama, limits("awq", 8), conversations, bits=8)
        return
    with pytest.raises(CellError, match=r"logit_error is .*, the limit is 0\.1"):
        prove(tmp_path / "made", tiny_llama, limits("awq", 8), conversations, bits=8)


def test_autoawq_on_a_cpu_as_it_comes(tmp_path):
    """It leaves the first scales it tries in the weights for good; our script keeps a true copy of them."""
    need("autoawq")
    rows = read_jsonl(ROOT / "data/conversations/toy_benign.jsonl")
    (tmp_path / "made").mkdir()
    quantize_elsewhere(QuantizeJob(TOY, tmp_path / "made", 4, {}, rows), "autoawq", {"as_is": True}, old=True)
    with pytest.raises(CellError) as caught:
        prove(tmp_path / "made", TOY, limits("awq_autoawq", 4), rows, bits=4)
    print(f"AutoAWQ on a CPU, as it comes: {caught.value}")


def quip(source, out, conversations, bits):
    """A folder as llm-compressor's QuIP modifier saves it: rotated weights, and transforms nobody applies again."""
    from compressed_tensors.quantization import QuantizationScheme
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform import QuIPModifier

    from bitsafe.artefacts.formats.compressed import weight_args

    model, tokenizer = load_model(source, "float32"), load_tokenizer(source)
    scheme = {"group_0": QuantizationScheme(targets=["Linear"], weights=weight_args(bits, 64, False)).model_dump()}
    rotate = QuIPModifier(rotations=["v", "u"], transform_type="hadamard", ignore=["lm_head"])
    batches = calibration_batches(encode_all(tokenizer, conversations))
    run_modifiers(model, batches, [rotate, QuantizationModifier(config_groups=scheme, ignore=["lm_head"])])
    with quiet():
        model.save_pretrained(out, save_compressed=True)
    copy_side_files(source, out)


@pytest.mark.parametrize("bits", [8, 4])
def test_llm_compressors_quip_after_a_reload(bits, tiny_llama, tmp_path, conversations):
    """Read as its tensors stand, which is what transformers does: the proof sees that the weights are others."""
    quip(tiny_llama, tmp_path / "made", conversations, bits)
    forget_transforms(tmp_path / "made")
    with pytest.raises(CellError, match=r"weight_error is 0\.9") as caught:
        prove(tmp_path / "made", tiny_llama, limits("rtn", bits), conversations, bits=bits)
    print(f"llm-compressor's QuIP at {bits} bits, reloaded: {caught.value}")


def test_saved_transforms_are_refused_at_any_bits(tiny_llama, tmp_path, conversations):
    """At 3 bits the limits are too wide to tell: that nobody applies the transforms is reason enough."""
    quip(tiny_llama, tmp_path / "made", conversations, 3)
    with pytest.raises(CellError, match="transform_config"):
        prove(tmp_path / "made", tiny_llama, {}, conversations, bits=3)


def forget_transforms(folder):
    config = read_json(folder / "config.json")
    config["quantization_config"].pop("transform_config")
    write_json(folder / "config.json", config)
