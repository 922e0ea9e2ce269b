"""Layers quantized by gptqmodel's GPTQ, run in .envs/gptqmodel: JOB.json → Ŵ of every layer and bit-width.

job: layers (a safetensors file of `NAME.weight` [out, in] and `NAME.inputs` [rows, in], whose Gram matrix is that of
the calibration inputs), bits, group_sizes, out (a safetensors file of `NAME.BITS.GROUP` [out, in]), facts.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import torch
from gptqmodel import QuantizeConfig
from gptqmodel.quantization.gptq import GPTQ
from safetensors.torch import load_file, save_file


def quantized(weight: torch.Tensor, inputs: torch.Tensor, bits: int, group_size: int) -> torch.Tensor:
    """Its defaults: columns reordered within what its groups allow (act_group_aware), an asymmetric grid."""
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data.copy_(weight)
    config = QuantizeConfig(
        bits=bits, group_size=group_size, sym=False, desc_act=False, fallback=None, offload_to_disk=False
    )
    solver = GPTQ(linear, config)
    solver.quantizer.configure(perchannel=True)
    solver.add_batch(inputs[None], linear(inputs)[None])
    return solver.quantize()[0].float().contiguous()


@torch.no_grad()
def main(job: dict) -> None:
    layers, found, began = load_file(job["layers"]), {}, time.process_time()
    for name in sorted(key.removesuffix(".weight") for key in layers if key.endswith(".weight")):
        for bits in job["bits"]:
            for group in job["group_sizes"]:
                weight = quantized(layers[f"{name}.weight"], layers[f"{name}.inputs"], bits, group)
                found[f"{name}.{bits}.{group}"] = weight
    save_file(found, job["out"])
    facts = {"library": f"gptqmodel {version('gptqmodel')}", "cpu_seconds": time.process_time() - began}
    Path(job["facts"]).write_text(json.dumps(facts))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
