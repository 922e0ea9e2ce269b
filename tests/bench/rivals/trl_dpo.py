"""A DPO training of trl with a peft LoRA, run in .envs/bench: JOB.json → seconds, memory and what was learned.

job: model (a folder of dense weights), rows (prompt_ids, chosen_ids, rejected_ids, in the order of the batches),
batch_size, learning_rate, beta, rank, out (a folder for the adapter), facts. Everything else is trl's default, but what
a CPU needs (float32) and what would make another training of it: no gradient checkpointing, batches in the order given,
token ids as given.
"""

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

CHOSEN = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "train_sampling_strategy": "sequential",
    "num_train_epochs": 1,
    "max_length": None,
    "dataloader_num_workers": 0,
    "dataloader_pin_memory": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}


class Tokenized(DPOTrainer):
    """Its trainer on pairs that are token ids already."""

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset


def trained(job: dict, model: torch.nn.Module, tokenizer: object) -> DPOTrainer:
    arguments = DPOConfig(
        output_dir=job["out"],
        per_device_train_batch_size=job["batch_size"],
        learning_rate=job["learning_rate"],
        beta=job["beta"],
        **CHOSEN,
    )
    lora = LoraConfig(r=job["rank"], lora_alpha=job["rank"], target_modules="all-linear", task_type="CAUSAL_LM")
    pairs = Dataset.from_list(job["rows"])
    trainer = Tokenized(model, args=arguments, train_dataset=pairs, processing_class=tokenizer, peft_config=lora)
    trainer.train()
    trainer.save_model(job["out"])
    return trainer


@torch.no_grad()
def margins(model: torch.nn.Module, rows: list[dict], beta: float) -> torch.Tensor:
    """β times how much more likely the chosen answer has become than the rejected one, in nats, one a pair."""
    now = logprobs(model, rows)
    with model.disable_adapter():
        before = logprobs(model, rows)
    return beta * ((now - before)[:, 0] - (now - before)[:, 1])


def logprobs(model: torch.nn.Module, rows: list[dict]) -> torch.Tensor:
    """[rows, 2]: summed over the answer's tokens, in nats."""
    return torch.tensor([[logprob(model, r["prompt_ids"], r[k]) for k in ("chosen_ids", "rejected_ids")] for r in rows])


def logprob(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> float:
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum().item()


def memory_mb() -> tuple[float, float]:
    """What is held now, and the most so far."""
    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # not ru_maxrss: that one still holds the size of the process that started this one
    return held / 1e6, int(status["VmHWM"].split()[0]) * 1024 / 1e6


def main(job: dict) -> None:
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    Path("/proc/self/clear_refs").write_text("5")  # the peak of loading is not the training's
    loaded, cpu, wall = memory_mb()[0], time.process_time(), time.perf_counter()
    trainer = trained(job, model, tokenizer)
    cpu, wall, peak = time.process_time() - cpu, time.perf_counter() - wall, memory_mb()[1]
    distinct = list({json.dumps(row): row for row in job["rows"]}.values())
    found = margins(trainer.model.eval(), distinct, job["beta"])
    facts = {"library": f"trl {version('trl')}, peft {version('peft')}, transformers {version('transformers')}"}
    facts |= {"cpu_seconds": cpu, "wall_seconds": wall, "loaded_mb": loaded, "peak_mb": peak, "above_mb": peak - loaded}
    facts |= {"margin": found.mean().item(), "loss": -torch.nn.functional.logsigmoid(found).mean().item()}
    facts |= {"steps": trainer.state.global_step, "chosen": CHOSEN, "optimizer": str(trainer.args.optim)}
    Path(job["facts"]).write_text(json.dumps(facts))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
