"""Methods of libraries that cannot live beside ours: each runs in an environment of its own, as a script on a job file.

`make env NAME=x` makes .envs/x; workflow/backends/x.py imports nothing but that environment's libraries. It gets the
job as JSON, with token ids in place of text, and writes its library's own checkpoint. That is brought here under the
source's tokenizer and config, so that it holds no path of this machine and equal tensors give equal bytes.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from bitsafe.artefacts.artefact import owner
from bitsafe.artefacts.checkpoint import (
    CONFIG,
    INDEX,
    copy_side_files,
    read_config,
    read_tensors,
    storage_dtype,
    weight_files,
    write_config,
    write_tensors,
)
from bitsafe.artefacts.load import load_tokenizer
from bitsafe.data.chat import encode_all
from bitsafe.errors import CellError, UserError
from bitsafe.files import read_json, write_json
from bitsafe.matrix.environments import interpreter
from bitsafe.matrix.tables import ROOT
from bitsafe.quantizers.base import QuantizeJob, linears, require_conversations, source_tensors
from bitsafe.quantizers.shared.calibration import calibration_facts, draw

SCRIPTS = ROOT / "workflow" / "backends"
TOLD = 15  # lines of a failed script that are shown
OF_THE_LIBRARY = ("meta", "offload_to_disk_path")  # paths, times and settings that say nothing about the tensors


def quantize_elsewhere(job: QuantizeJob, environment: str, settings: dict[str, Any], *, old: bool = False) -> dict:
    """Run a library's script on `job` and write the artefact. settings: what the script needs beside the job.

    old: the environment's transformers is older than 5, which reads other config keys.
    """
    require_conversations(job)
    python = interpreter(environment)
    names = linears(job)
    source_tensors(job)
    rows = [example.ids for example in encode_all(load_tokenizer(job.source), draw(job))]
    seen = calibration_facts([torch.tensor([ids]) for ids in rows], max(width for _, width in names.values()))
    work = job.out / ".work"
    (work / "source").mkdir(parents=True)
    try:
        show_source(job.source, work / "source", old=old)
        write_json(work / "job.json", _told(job, rows, work) | settings)
        run_script(python, SCRIPTS / f"{environment}.py", work)
        _bring(job, work / "out", set(names))
        facts = read_json(work / "facts.json")
    finally:
        shutil.rmtree(work)
    return facts | seen


def show_source(source: Path, folder: Path, *, old: bool) -> None:
    """The source's weights (linked) and config in `folder`; its tokenizer only for libraries that can read it."""
    for file in [*weight_files(source), *source.glob(INDEX)]:
        (folder / file.name).symlink_to(file.resolve())
    config = read_config(source)
    write_json(folder / CONFIG, for_old_transformers(config) if old else config)
    if not old:
        copy_side_files(source, folder)


def for_old_transformers(config: dict) -> dict:
    """A config of transformers 5 as version 4 writes it; it would pass over the new keys and take its defaults."""
    config = dict(config)
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    rope = config.pop("rope_parameters", None) or {}
    if any(isinstance(value, dict) for value in rope.values()):
        raise UserError(f"{CONFIG}: rope_parameters: one set a kind of layer: no older transformers can run this model")
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
    if rope.get("rope_type", "default") != "default":
        config["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    return config


def run_script(python: Path, script: Path, work: Path) -> None:
    """Run a script on work/job.json, without its chatter; one that fails is a CellError with its last lines."""
    # -I: neither our packages, nor the script's folder, nor anything of the user's is found by its imports
    command = [str(python), "-I", str(script), str(work / "job.json")]
    quietly = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    with (work / "log").open("w") as log:
        ended = subprocess.run(command, cwd=work, env=os.environ | quietly, stdout=log, stderr=log, check=False)
    if ended.returncode:
        last = (work / "log").read_text(errors="replace").splitlines()[-TOLD:]
        raise CellError("\n".join([f"{script.name} ended with {ended.returncode}:", *last]))


def _told(job: QuantizeJob, rows: list[list[int]], work: Path) -> dict[str, Any]:
    return {
        "source": str(work / "source"),
        "out": str(work / "out"),
        "facts": str(work / "facts.json"),
        "bits": job.bits,
        "group_size": job.group_size,
        "symmetric": job.symmetric,
        "dtype": str(storage_dtype(job.source)).removeprefix("torch."),
        "seed": job.seed,
        "rows": rows,
    }


def _bring(job: QuantizeJob, made: Path, names: set[str]) -> None:
    """The library's tensors and its description of them, with everything else from the source."""
    source, found = read_tensors(job.source), read_tensors(made)
    kept = {name: tensor for name, tensor in found.items() if name in source or owner(name, names)}
    others = {name: kept[name].to(source[name].dtype) for name in kept if name in source}
    write_tensors(job.out, kept | others)
    theirs = read_config(made).get("quantization_config") or {}
    said = {key: value for key, value in theirs.items() if key not in OF_THE_LIBRARY}
    if quantizer := (theirs.get("meta") or {}).get("quantizer"):
        said["meta"] = {"quantizer": quantizer}  # gptqmodel trusts asymmetric zero-points only of quantizers it knows
    write_config(job.source, job.out, quantization_config=json.loads(json.dumps(said)))
    copy_side_files(job.source, job.out)
