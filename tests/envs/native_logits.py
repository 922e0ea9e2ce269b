"""Logits of a checkpoint by the transformers of whatever environment runs this: FOLDER IDS.json OUT.json.

IDS: one list of token ids. OUT: [tokens, vocab]. It imports nothing of ours, and no tokenizer is read.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import torch
from transformers import AutoModelForCausalLM

folder, ids, out = map(Path, sys.argv[1:])
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float16, device_map={"": "cpu"}).eval()
with torch.no_grad():
    logits = model(torch.tensor([json.loads(ids.read_text())])).logits[0].float()
out.write_text(json.dumps(logits.tolist()))
