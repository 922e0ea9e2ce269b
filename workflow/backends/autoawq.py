"""AWQ by AutoAWQ, run in .envs/autoawq on a job file that bitsafe.quantizers.environment wrote.

Only that environment's libraries are imported here. job: source, out and facts (paths), bits, group_size, seed, rows
(token ids, one list a conversation), as_is (leave its fault on a CPU in place, for the test that shows it).

AutoAWQ joins all rows and cuts them into blocks as long as the longest row, so a conversation sees the end of the one
before it; what does not fill the last block is left out.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from awq import AutoAWQForCausalLM
from awq.quantize.quantizer import AwqQuantizer


class Restoring(AwqQuantizer):
    """AutoAWQ's quantizer with weights that stay what they were while scales are tried.

    It keeps them by `.cpu()`, a copy on a GPU only: on a CPU the first scales tried remain in every weight for good.
    """

    def _compute_best_scale(self, x, w_mean, x_mean, module2inspect, *rest, **named):
        plain = module2inspect.state_dict
        module2inspect.state_dict = lambda: {name: tensor.clone() for name, tensor in plain().items()}
        try:
            return super()._compute_best_scale(x, w_mean, x_mean, module2inspect, *rest, **named)
        finally:
            del module2inspect.state_dict


def main(job: dict) -> None:
    torch.manual_seed(job["seed"])
    model = AutoAWQForCausalLM.from_pretrained(job["source"], safetensors=True, device_map=None)
    config = {"w_bit": job["bits"], "q_group_size": job["group_size"], "zero_point": True, "version": "GEMM"}
    block = max(map(len, job["rows"]))
    model.quantize(
        None,
        quant_config=config,
        calib_data=job["rows"],
        max_calib_samples=len(job["rows"]),
        max_calib_seq_len=block,
        quantizer_cls=AwqQuantizer if job.get("as_is") else Restoring,
    )
    model.save_quantized(job["out"])
    tokens = sum(map(len, job["rows"])) // block * block
    libraries = {name: version(name) for name in ("autoawq", "transformers", "torch")}
    Path(job["facts"]).write_text(json.dumps({"libraries": libraries, "block": block, "tokens_in_blocks": tokens}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
