"""overhead: the core-seconds of a whole fresh run of the embedded default against those of its model work alone.

Model work is what `quantize`, `patch` and `generate` spend inside their steps, less the import of libraries that they
load on the way. All else is outside, and told apart: what jobs that load a model take to start, jobs that load none
(judging, scores, tables, figures, report), and the rest (Snakemake, idle cores, writing). The goal is below 35 %.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

RUN = Path("results/bench_overhead")
STEPS = ("quantize", "patch", "generate")  # those that load a model
LIBRARIES = {"gptq": "llmcompressor", "awq": "llmcompressor", "nf4": "bitsandbytes", "qlora": "bitsandbytes, peft"}


def run() -> list[dict]:
    shutil.rmtree(RUN, ignore_errors=True)
    started = time.monotonic()
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--quiet", "all", "--config", f"run={RUN.name}"]
    subprocess.run(command, check=True)
    whole = (time.monotonic() - started) * len(os.sched_getaffinity(0))
    work = {f"{step}_seconds": seconds(step) for step in STEPS}
    imported = library_imports()
    peer = sum(work.values()) - imported
    row = {"name": "overhead", "ours": whole, "peer": peer, "peer_name": "the same model work alone"}
    row |= {"ratio": whole / peer, "unit": "core s", "n": 1, "spread": None, "share_outside": 1 - peer / whole}
    row |= {"library_import_seconds": imported} | work | outside(whole, peer)
    print(f"share of core-seconds outside model work: {row['share_outside']:.1%} (goal below 35 %)")
    shutil.rmtree(RUN)
    return [row]


def outside(whole: float, peer: float) -> dict[str, float]:
    """The core-seconds that are no model work, by what they went to."""
    with_model = [job_seconds(file) for step in STEPS for file in (RUN / "timings" / step).glob("*.tsv")]
    every = [job_seconds(file) for file in (RUN / "timings").rglob("*.tsv")]
    starts, others = sum(with_model) - peer, sum(every) - sum(with_model)
    jobs = {"jobs": len(every), "jobs_with_model": len(with_model)}
    return jobs | {"starts_seconds": starts, "other_jobs_seconds": others, "rest_seconds": whole - sum(every)}


def job_seconds(timing: Path) -> float:
    """Wall seconds of a job, by Snakemake's benchmark of it."""
    names, values = (line.split("\t") for line in timing.read_text().splitlines()[:2])
    return float(dict(zip(names, values))["s"])


def seconds(step: str) -> float:
    """Seconds recorded by the indexes of one step over all cells."""
    name = "answers.json" if step == "generate" else "artefacts.json"
    indexes = [path for path in RUN.rglob(name) if step == "generate" or (step == "quantize") == is_quantized(path)]
    return sum(json.loads(path.read_text())["seconds"] for path in indexes)


def is_quantized(path: Path) -> bool:
    return path.parent.name == "quantized"


def library_imports() -> float:
    """What the quantize jobs spent importing a library, by the time that one import takes beside torch here."""
    total = 0.0
    for libraries in set(LIBRARIES.values()):
        cells = [path for path in RUN.rglob("quantized/artefacts.json") if LIBRARIES.get(path.parts[-5]) == libraries]
        code = (
            f"import torch, transformers, time; t = time.monotonic(); import {libraries}; print(time.monotonic() - t)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        total += len(cells) * float(done.stdout.split()[-1])
    return total
