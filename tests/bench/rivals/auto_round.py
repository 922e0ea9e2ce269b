"""Decoder blocks quantized by auto-round, run in .envs/bench: JOB.json → Ŵ of the layers asked for, at every width.

job: model (a checkpoint's folder), rows (token ids, all of one length), layers (their names), bits, group_sizes,
out (a safetensors file of `NAME.BITS.GROUP` [out, in]), facts. It tunes whole blocks on the block's output, 200 steps,
its own default; blocks without a layer that is asked for stay in full precision.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from auto_round import AutoRound
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def quantized(job: dict, bits: int, group_size: int) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    blocks = sorted({".".join(name.split(".")[:3]) for name in job["layers"]}, key=lambda name: int(name.split(".")[2]))
    tuner = AutoRound(
        model,
        tokenizer,
        bits=bits,
        group_size=group_size,
        sym=False,
        nsamples=len(job["rows"]),
        seqlen=len(job["rows"][0]),
        dataset=[{"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row))} for row in job["rows"]],
        to_quant_block_names=",".join(blocks),
        device_map="cpu",
        enable_torch_compile=False,
        amp=False,
    )
    model, _ = tuner.quantize()
    return {name: model.get_submodule(name).weight.detach().float().contiguous() for name in job["layers"]}


def main(job: dict) -> None:
    found, began = {}, time.process_time()
    for bits in job["bits"]:
        for group in job["group_sizes"]:
            weights = quantized(job, bits, group)
            found |= {f"{name}.{bits}.{group}": weight for name, weight in weights.items()}
    save_file(found, job["out"])
    facts = {"library": f"auto-round {version('auto-round')}", "cpu_seconds": time.process_time() - began}
    Path(job["facts"]).write_text(json.dumps(facts))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
