"""Layers quantized by the code of AQLM's authors, run where that is checked out: JOB.json → Ŵ and seconds of each.

job: layers (a safetensors file of `NAME.weight` [out, in] and `NAME.gram` [in, in]), layouts ([codebooks, bits of a
code, inputs a group] by bits), out (a safetensors file of `NAME.BITS` [out, in]), facts.
"""

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

import torch
from aq_engine import AQEngine
from safetensors.torch import load_file, save_file

# what its README asks a 7B model to be quantized with; all else are the defaults of its main.py
ASKED = {"relative_mse_tolerance": 0.01}
DEFAULTS = {"lr": 1e-4, "beam_size": 1, "max_epochs": 1000, "steps_per_epoch": 100, "init_max_iter": 100}
DEFAULTS |= {"init_max_points_per_centroid": None, "codebook_value_nbits": 16, "codebook_value_num_groups": 1}
DEFAULTS |= {"scale_nbits": 0, "out_group_size": 1, "print_frequency": 1000}


def quantized(weight: torch.Tensor, gram: torch.Tensor, layout: list[int]) -> torch.Tensor:
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data.copy_(weight)
    engine = AQEngine(linear)
    engine.XTX.copy_(gram)
    shape = dict(zip(("num_codebooks", "nbits_per_codebook", "in_group_size"), layout))
    args = Namespace(**DEFAULTS, **ASKED, **shape, devices=[torch.device("cpu")])
    return engine.quantize(args=args, verbose=False)().detach().contiguous()


def main(job: dict) -> None:
    torch.manual_seed(0)
    layers, found, seconds = load_file(job["layers"]), {}, {}
    for name in sorted(key.removesuffix(".weight") for key in layers if key.endswith(".weight")):
        for bits, layout in job["layouts"].items():
            started = time.process_time()
            found[f"{name}.{bits}"] = quantized(layers[f"{name}.weight"], layers[f"{name}.gram"], layout)
            seconds[f"{name}.{bits}"] = time.process_time() - started
            print(name, bits, f"{seconds[f'{name}.{bits}']:.1f} s", file=sys.stderr, flush=True)
    save_file(found, job["out"])
    Path(job["facts"]).write_text(json.dumps({"cpu_seconds": seconds}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
