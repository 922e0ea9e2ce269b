"""GPTQ or AWQ by gptqmodel, run in .envs/gptqmodel on a job file that bitsafe.quantizers.shared.environment wrote.

Only that environment's libraries are imported here. job: source, out and facts (paths), bits, group_size, symmetric,
dtype (the checkpoint's), seed, rows (token ids, one list a conversation), method (gptq or awq); for GPTQ, dampening.
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

# read when gptqmodel is imported: it asks for two workers even on one core; its faster packer compiles C++ on first use
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
os.environ.setdefault("GPTQMODEL_DISABLE_PACK_EXT", "1")

import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from gptqmodel.quantization import FORMAT, METHOD


def settings(job: dict) -> QuantizeConfig:
    """The library's settings: columns in their own order, and no falling back to plain rounding without a word."""
    shared = {"bits": job["bits"], "group_size": job["group_size"], "sym": job["symmetric"], "fallback": None}
    shared |= {"desc_act": False, "offload_to_disk": False, "device": "cuda" if torch.cuda.is_available() else "cpu"}
    if job["method"] == "awq":
        return QuantizeConfig(**shared, quant_method=METHOD.AWQ, format=FORMAT.GEMM)
    return QuantizeConfig(**shared, act_group_aware=False, damp_percent=job["dampening"])


def main(job: dict) -> None:
    torch.manual_seed(job["seed"])
    # left to itself, it turns a float16 checkpoint to bfloat16 on a CPU
    model = GPTQModel.load(job["source"], settings(job), dtype=getattr(torch, job["dtype"]))
    rows = [{"input_ids": [ids], "attention_mask": [[1] * len(ids)]} for ids in job["rows"]]
    backend = BACKEND.AWQ_TORCH if job["method"] == "awq" else BACKEND.AUTO  # AWQ's own choice needs a GPU
    model.quantize(rows, batch_size=1, calibration_data_min_length=0, calibration_sort=None, backend=backend)
    model.save(job["out"])
    libraries = {name: version(name) for name in ("gptqmodel", "transformers", "torch")}
    Path(job["facts"]).write_text(json.dumps({"libraries": libraries}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
