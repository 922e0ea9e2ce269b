"""What the methods that bitsandbytes does share: it quantizes while transformers loads, and transformers saves."""

from pathlib import Path
from typing import Any

import transformers

from bitsafe.artefacts.activations import Activations, Rule, write_activations
from bitsafe.artefacts.artefact import read_layers
from bitsafe.artefacts.checkpoint import copy_side_files, storage_dtype
from bitsafe.artefacts.load import as_dtype, model_class
from bitsafe.artefacts.quiet import quiet
from bitsafe.quantizers.base import QuantizeJob, linears, require_bits, require_params, source_tensors

BITS = {"int8": 8, "nf4": 4, "fp4": 4}  # by the library's name of the type
OUTLIER_THRESHOLD = 6.0  # Dettmers et al. 2022, §3.2; transformers' default


def quantize_without_data(job: QuantizeJob, kind: str) -> dict:
    """Write a bitsandbytes artefact of one of the types above. No parameters."""
    require_bits(job, (BITS[kind],))
    require_params(job, ())
    linears(job)
    source_tensors(job)
    save_bitsandbytes(job.source, job.out, kind, job.dtype)
    return {"layers": len(read_layers(job.out))}


def save_bitsandbytes(source: Path, out: Path, kind: str, dtype: str) -> None:
    """Quantize a checkpoint and save what the library made: 4 bits in blocks of 64, float32 maxima; 8 bits by row.

    Beside 8-bit weights lies how LLM.int8 rounds activations.
    """
    with quiet():
        model = load_bitsandbytes(source, storage_dtype(source), quantization_config=_settings(kind, dtype))
        model.save_pretrained(out)
    copy_side_files(source, out)
    if kind == "int8":
        write_activations(out, Activations(inputs=Rule(8, symmetric=True, threshold=OUTLIER_THRESHOLD)))


def _settings(kind: str, dtype: str) -> transformers.BitsAndBytesConfig:
    if kind == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=OUTLIER_THRESHOLD)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=as_dtype(dtype)
    )


def load_bitsandbytes(folder: Path, dtype: Any, device: str = "cpu", **settings: Any) -> Any:
    """A model whose linear layers are bitsandbytes' own."""
    config = transformers.AutoConfig.from_pretrained(folder)
    return model_class(folder, config).from_pretrained(folder, dtype=dtype, device_map={"": device}, **settings)
