"""smollm2: SmolLM2-135M through every method and bit-width on the CPU, one process a cell, resumable.

`make bench-smollm2` leaves results/bench/smollm2/<method>-<bits>.json, one a cell (what is there is kept), and the
table results/bench/smollm2.md. A cell past 15 minutes of processor time is listed "not run". aqlm takes the first four
blocks: they are quantized and proved as a checkpoint of their own, and measured in the whole model with the other
blocks as they were.

The checkpoint out of the wheel was 4-bit already (Q4_1, groups of 32): the 4-bit rows say nothing about methods.
"""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from bitsafe.artefacts.check import prove
from bitsafe.artefacts.checkpoint import copy_side_files, read_tensors, storage_dtype, write_config, write_tensors
from bitsafe.artefacts.load import dense_tensors
from bitsafe.data.checkpoints import fetch_model
from bitsafe.data.conversations import load_conversations
from bitsafe.errors import CellError, UserError
from bitsafe.files import write_json
from bitsafe.matrix.tables import ROOT, Tables
from bitsafe.quantizers.base import QuantizeJob

OUT = Path("results/bench/smollm2")
CHECKPOINT, SHORT = Path("results/models/smollm2/checkpoint"), Path("results/models/smollm2_4blocks")
FEW_BLOCKS, BLOCKS = ("aqlm",), 4
LIMIT_SECONDS, CALIBRATION, HELD_OUT = 900, 16, 8
METHODS = ("rtn", "gptq", "awq", "quik", "quik_weight_only", "quip_sharp", "aqlm", "llm_int8", "nf4", "fp4")
METHODS += ("ste", "llm_qat", "qlora", "qlora_merged", "qlora_requantized")
FEW_STEPS = {"steps": 10, "distill_steps": 5, "samples": 16, "batch_size": 4}  # what fits a CPU
UNCHANGED = ("gptq", "awq", "quik", "quik_weight_only", "quip_sharp")  # their `samples` is CALIBRATION


def cells() -> list[tuple[str, int]]:
    tables = Tables()
    return [(name, bits) for name in METHODS for bits in tables.get("methods", name, "bench").bits]


def main() -> int:
    prepare()
    todo = cells()
    for count, (method, bits) in enumerate(todo, 1):
        file = OUT / f"{method}-{bits}.json"
        if not file.exists():
            print(f"[{count}/{len(todo)}] {method} {bits} bits", flush=True)
            run_cell(method, bits, file)
    found = [OUT / f"{method}-{bits}.json" for method, bits in todo]
    text = table([json.loads(file.read_text()) for file in found if file.exists()])
    OUT.with_suffix(".md").write_text(text)
    print(text)
    return 0


def prepare() -> None:
    """The checkpoint and its first four blocks."""
    OUT.mkdir(parents=True, exist_ok=True)
    if not (CHECKPOINT / "config.json").exists():
        fetch_model(Tables().get("models", "smollm2", "bench").model_dump() | {"name": "smollm2"}, CHECKPOINT)
    if (SHORT / "config.json").exists():
        return
    shutil.rmtree(SHORT, ignore_errors=True)
    SHORT.mkdir(parents=True)
    whole = read_tensors(CHECKPOINT)
    kept = {name: t for name, t in whole.items() if ".layers." not in name or int(name.split(".")[2]) < BLOCKS}
    write_tensors(SHORT, kept)
    copy_side_files(CHECKPOINT, SHORT)
    write_config(CHECKPOINT, SHORT, num_hidden_layers=BLOCKS)


def run_cell(method: str, bits: int, file: Path) -> None:
    """One cell in a process of its own, so that its peak memory is its own and it can be stopped."""
    row = {"method": method, "bits": bits, "blocks": BLOCKS if method in FEW_BLOCKS else "all"}
    command = [sys.executable, "-m", "tests.bench.smollm2", method, str(bits), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == -signal.SIGXCPU:
        write_json(file, row | {"not_run": f"past {LIMIT_SECONDS // 60} minutes"})
    elif done.returncode < 0:  # killed from outside: to be tried again
        print(f"  killed by {signal.Signals(-done.returncode).name}", flush=True)
    elif done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        write_json(file, row | {"not_run": last})


def measure(method: str, bits: int) -> dict:
    """Quantize, prove on conversations that no method saw, and tell what it took."""
    row = Tables().get("methods", method, "bench")
    source = SHORT if method in FEW_BLOCKS else CHECKPOINT
    data = Tables().get("datasets", "everyday", "bench").model_dump() | {"name": "everyday"}
    rows = load_conversations(data, ROOT, answered=True)
    seen, held_out = rows[:CALIBRATION], rows[-HELD_OUT:]
    few = {key: value for key, value in FEW_STEPS.items() if key in row.params and method not in UNCHANGED}
    needs_data = row.risk_use != "no"
    with TemporaryDirectory(dir=OUT) as folder:
        out = Path(folder)
        job = QuantizeJob(source, out, bits, row.params | few, seen if needs_data else [], 0, "float32")
        started = time.process_time()
        import_module(row.module).quantize(job)
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        facts = prove(out, source, {}, held_out, bits=16 if row.params.get("form") == "merged" else bits)
        if method in FEW_BLOCKS:
            facts |= in_the_whole_model(out, held_out)
    found = {"method": method, "bits": bits, "blocks": BLOCKS if method in FEW_BLOCKS else "all", "changed": few}
    wanted = ("effective_bits", "stored_bits", "logit_error", "perplexity", "perplexity_source", "weight_error")
    return found | {key: facts[key] for key in wanted if key in facts} | {"cpu_seconds": seconds, "peak_gb": peak}


def in_the_whole_model(artefact: Path, held_out: list[dict]) -> dict:
    """Logit error and perplexity of the whole model with the artefact's few blocks in it, otherwise full precision."""
    with TemporaryDirectory(dir=OUT) as folder:
        whole = Path(folder)
        write_tensors(whole, read_tensors(CHECKPOINT) | dense_tensors(artefact, storage_dtype(CHECKPOINT))[0])
        copy_side_files(CHECKPOINT, whole)
        write_config(CHECKPOINT, whole)
        facts = prove(whole, CHECKPOINT, {}, held_out, bits=16)
    return {key: facts[key] for key in ("logit_error", "perplexity", "perplexity_source")}


def beyond(row: dict) -> list[str]:
    """What of a cell exceeds the limits of its method's row; a few blocks' artefact is another than they are for."""
    limits = Tables().get("methods", row["method"], "bench").limits.get(row["bits"], {})
    found = row | {"perplexity": row["perplexity"] / row["perplexity_source"]}
    return [name for name, limit in limits.items() if found[name] > limit]


def table(rows: list[dict]) -> str:
    lines = ["| method | bits | effective | perplexity | logit error | CPU minutes | peak GB | |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        name = f"| `{row['method']}` | {row['bits']} |"
        if "not_run" in row:
            lines.append(f"{name} | | | | | not run: {row['not_run']} |")
            continue
        remarks = [f"{row['blocks']} blocks"] if row["blocks"] != "all" else []
        remarks += [f"{key} {value}" for key, value in row["changed"].items() if key in ("steps", "distill_steps")]
        remarks += [f"**beyond its limit of {name}**" for name in beyond(row)]
        lines.append(
            f"{name} {row['effective_bits']:.2f} | {row['perplexity']:.4g} | {row['logit_error']:.3f} "
            f"| {row['cpu_seconds'] / 60:.1f} | {row['peak_gb']:.1f} | {', '.join(remarks)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) == 1:
        raise SystemExit(main())
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_SECONDS, LIMIT_SECONDS + 5))
    try:
        write_json(Path(sys.argv[3]), measure(sys.argv[1], int(sys.argv[2])))
    except (CellError, UserError) as error:
        raise SystemExit(str(error)) from error
