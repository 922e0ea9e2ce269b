"""Logits of a checkpoint by the libraries of whatever environment runs this: FOLDER IDS.json OUT.json KERNEL.

IDS: one list of token ids. OUT: [tokens, vocab]. KERNEL: a backend of gptqmodel, or `transformers` for what that
chooses. It imports nothing of ours, and no tokenizer is read.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import torch

folder, ids, out, kernel = sys.argv[1:]
if kernel == "transformers":
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float16, device_map={"": "cpu"}).eval()
else:
    from gptqmodel import BACKEND, GPTQModel

    model = GPTQModel.load(folder, backend=BACKEND(kernel), device="cpu", dtype=torch.float16)
with torch.no_grad():
    logits = model(input_ids=torch.tensor([json.loads(Path(ids).read_text())])).logits[0].float()
Path(out).write_text(json.dumps(logits.tolist()))
