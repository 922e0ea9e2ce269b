"""GPTQ by AutoGPTQ, run in .envs/auto-gptq on a job file of quantizers.shared.environment. It needs a GPU.

Only that environment's libraries are imported here. job: source, out and facts (paths), bits, group_size, seed,
dampening, rows (token ids, one list a conversation).
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from auto_gptq import AutoGPTQForCausalLM, BaseQuantizeConfig


def main(job: dict) -> None:
    torch.manual_seed(job["seed"])
    config = BaseQuantizeConfig(
        bits=job["bits"],
        group_size=job["group_size"],
        damp_percent=job["dampening"],
        desc_act=False,
        sym=True,
        model_file_base_name="model",  # else its file would be named after bits and group size
    )
    model = AutoGPTQForCausalLM.from_pretrained(job["source"], config)
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job["rows"]]
    model.quantize(rows, batch_size=1, cache_examples_on_gpu=False)
    model.save_quantized(job["out"], use_safetensors=True)
    libraries = {name: version(name) for name in ("auto-gptq", "transformers", "torch")}
    Path(job["facts"]).write_text(json.dumps({"libraries": libraries}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
