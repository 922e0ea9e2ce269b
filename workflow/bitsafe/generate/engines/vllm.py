"""Engine `vllm`: `vllm serve` on a dense export of the artefact, started for a replicate and stopped after it.

Never run against a real vLLM here: the tests have a stand-in. It follows https://docs.vllm.ai (OpenAI-Compatible
Server): `--generation-config vllm` keeps the checkpoint's own defaults out, as every parameter is explicit here.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from bitsafe.artefacts.activations import read_activations
from bitsafe.artefacts.artefact import Format, dense_folder, format_of
from bitsafe.artefacts.checkpoint import CONFIG, copy_side_files, read_config, write_tensors
from bitsafe.artefacts.load import as_dtype, dense_tensors
from bitsafe.errors import UserError
from bitsafe.files import write_json
from bitsafe.generate.engines import Ask, Served
from bitsafe.generate.engines.remote import Endpoint, client

NAME, EXPORT, LOG = "bitsafe", "vllm_export", "vllm.log"
BEYOND = ("top_k", "repetition_penalty")
GRACE = 30  # seconds that a server has to end


def told(served: Served) -> Any:
    """vLLM's version, and the arguments it is started with."""
    return ["vllm", _version(served.params["command"]), served.params["arguments"]]


@contextmanager
def opened(served: Served) -> Iterator[Ask]:
    export = served.artefact.parent / EXPORT
    shutil.rmtree(export, ignore_errors=True)
    try:
        with running(served, export_dense(served, export)) as base_url:
            yield Endpoint(client(base_url, "none"), NAME, served.artefact, BEYOND).ask
    finally:
        shutil.rmtree(export, ignore_errors=True)


def export_dense(served: Served, out: Path) -> Path:
    """The folder to serve: the source itself, or `out` with every quantized weight dense in the model's dtype."""
    if read_activations(served.artefact) is not None:
        raise UserError(
            f"{served.artefact}: its method rounds activations, which a dense export cannot: ask transformers"
        )
    if format_of(served.artefact) in (Format.POINTER, Format.DENSE):
        return dense_folder(served.artefact)
    out.mkdir(parents=True)
    dtype = as_dtype(served.dtype)
    write_tensors(out, {name: t.to(dtype) for name, t in dense_tensors(served.artefact, dtype)[0].items()})
    copy_side_files(served.artefact, out)
    config = {key: value for key, value in read_config(served.artefact).items() if key != "quantization_config"}
    write_json(out / CONFIG, config | {"dtype": served.dtype})
    return out


@contextmanager
def running(served: Served, folder: Path) -> Iterator[str]:
    """The base_url of a server of this folder; it is ended, with all it started, when the block is left."""
    port, log = _free_port(), served.artefact.parent / LOG
    command = [served.params["command"], "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", NAME, "--dtype", served.dtype, "--generation-config", "vllm"]
    with log.open("w") as stream:
        process = _start([*command, *map(str, served.params["arguments"])], stream)
        try:
            _wait_for(process, f"http://127.0.0.1:{port}/health", 60 * served.params["start_minutes"], log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _stop(process)


def _start(command: list[str], stream: Any) -> subprocess.Popen:
    try:
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
    except OSError as error:
        raise UserError(
            f"{command[0]}: not run ({error.strerror}): `command` of the engine's row names vllm"
        ) from error


def _wait_for(process: subprocess.Popen, url: str, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
            raise UserError(f"{log}: vllm ended with {process.returncode} before it served; its last line: {last}")
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise UserError(f"{log}: vllm did not serve within {seconds / 60:g} minutes (`start_minutes` of the engine's row)")


def _stop(process: subprocess.Popen) -> None:
    """End the server and all it started: its workers may outlive it."""
    for name in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, name)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@lru_cache
def _version(command: str) -> str:
    try:
        said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{command} --version: {error}: `command` of the engine's row names vllm") from error
    return said.strip().splitlines()[-1] if said.strip() else "unknown"
