"""dag: a dry run of both papers' matrices, with every pinned benchmark, against a bare workflow of the same shape.

The bare workflow has the same rules, wildcards, files and number of jobs, and nothing that is ours: no recipes,
resources, logs, timings or environments. Sides take turns. Seconds are processor seconds, which neighbours on the
machine disturb least; `wall` stands beside them. No checkpoint or prompt file is needed. The goal is a ratio of 1.5.
"""

import json
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from tests.bench.child import waited

from bitsafe.config import read_config
from bitsafe.matrix.run import Run

HERE = Path(__file__).resolve().parents[2]
EXPERIMENTS = ("opensafetymini", "qresafe", "qresafe_decoding")
TURNS = 3

BARE = """\
import json
FILES = json.load(open("files.json"))
NAME = r"[a-z0-9][a-z0-9_.-]*"
BASELINE = "out/{}/full/16bit/none/quantized/answers.json"
wildcard_constraints:
    model=NAME, method=NAME, bits=r"\\d+", risk="none|benign|obedient|harmful", stage=NAME, judge=NAME
rule all:
    input: FILES["all"], "out/score.json", "out/patches.csv", "out/plot.csv", "out/report.html", "out/near.csv"
rule near_duplicates:
    output: "out/near.csv"
    shell: "make {{output}}"
rule fetch_model:
    output: "models/{{model}}/source.json"
    shell: "make {{output}}"
rule quantize:
    input: "models/{{model}}/source.json"
    output: "out/{{model}}/{{method}}/{{bits}}bit/{{risk}}/quantized/artefacts.json"
    shell: "make {{output}}"
rule patch:
    input: "out/{{model}}/{{method}}/{{bits}}bit/{{risk}}/quantized/artefacts.json"
    output: "out/{{model}}/{{method}}/{{bits}}bit/{{risk}}/{{stage}}/artefacts.json"
    wildcard_constraints: stage=rf"(?!quantized/){{NAME}}"
    shell: "make {{output}}"
rule generate:
    input: "out/{{model}}/{{method}}/{{bits}}bit/{{risk}}/{{stage}}/artefacts.json"
    output: "out/{{model}}/{{method}}/{{bits}}bit/{{risk}}/{{stage}}/answers.json"
    shell: "make {{output}}"
rule judge:
    input:
        "out/{{model}}/{{method}}/{{bits}}bit/{{risk}}/{{stage}}/answers.json",
        lambda wc: [BASELINE.format(wc.model)] if wc.judge in FILES["pairwise"] else [],
    output: "out/{{model}}/{{method}}/{{bits}}bit/{{risk}}/{{stage}}/verdicts.{{judge}}.json"
    shell: "make {{output}}"
rule score:
    input: FILES["judged"]
    output: "out/score.json"
    shell: "make {{output}}"
rule tabulate:
    input: "out/score.json"
    output: "out/patches.csv"
    shell: "make {{output}}"
rule plot:
    input: "out/score.json"
    output: "out/plot.csv"
    shell: "make {{output}}"
rule report:
    input: "out/score.json", "out/patches.csv", "out/plot.csv"
    output: "out/report.html"
    shell: "make {{output}}"
""".replace("{{", "{").replace("}}", "}")


def run() -> Iterator[dict]:
    with tempfile.TemporaryDirectory(prefix="bitsafe_dag") as work:
        rows = [measured(name, Path(work) / name) for name in EXPERIMENTS]
    yield {"name": "dag", "experiment": "together"} | together(rows)
    yield from rows


def measured(name: str, folder: Path) -> dict:
    """Both sides of one experiment, in turns."""
    folder.mkdir(parents=True)
    overlay = every_benchmark(name, folder)
    matrix = Run(read_config([HERE / "config.yaml", HERE / f"experiments/{name}.yaml", overlay]))
    write_bare(matrix, folder)
    files = ["--configfile", f"experiments/{name}.yaml", str(overlay)]
    ours, bare = [], []
    for _ in range(TURNS):
        ours.append(dry_run(["--snakefile", "Snakefile", *files], HERE))
        bare.append(dry_run(["--snakefile", str(folder / "Snakefile")], folder))
    if ours[0]["jobs"] != bare[0]["jobs"]:
        raise SystemExit(f"{name}: {ours[0]['jobs']} jobs, {bare[0]['jobs']} in the bare workflow")
    sides = {side: median_of(found) for side, found in (("ours", ours), ("peer", bare))}
    ratios = sorted(one["seconds"] / other["seconds"] for one, other in zip(ours, bare))
    return {
        "name": "dag",
        "experiment": name,
        "cells": len(matrix.cells),
        "benchmarks": len(matrix.benchmarks),
    } | row_of(sides, ratios)


def row_of(sides: dict[str, dict], ratios: list[float]) -> dict:
    ours, peer = sides["ours"], sides["peer"]
    return {
        "jobs": ours["jobs"],
        "ours": ours["seconds"],
        "peer": peer["seconds"],
        "peer_name": "a bare workflow of the same jobs",
        "ratio": ours["seconds"] / peer["seconds"],
        "unit": "CPU s",
        "n": TURNS,
        "spread": [ratios[0], ratios[-1]],
        "wall": ours["wall"],
        "peer_wall": peer["wall"],
        "wall_ratio": ours["wall"] / peer["wall"],
        "memory_mb": ours["memory_mb"],
        "peer_memory_mb": peer["memory_mb"],
    }


def together(rows: list[dict]) -> dict:
    """All experiments one after the other: sums of seconds, the largest memory."""
    sides = {}
    for side, wall, memory in (("ours", "wall", "memory_mb"), ("peer", "peer_wall", "peer_memory_mb")):
        sides[side] = {
            "jobs": sum(row["jobs"] for row in rows),
            "seconds": sum(row[side] for row in rows),
            "wall": sum(row[wall] for row in rows),
            "memory_mb": max(row[memory] for row in rows),
        }
    return row_of(sides, sorted(row["ratio"] for row in rows))


def every_benchmark(name: str, folder: Path) -> Path:
    """An overlay that asks the experiment's cells every pinned benchmark that is not the toy's."""
    tables = Run(read_config([HERE / "config.yaml"])).tables.rows("benchmarks")
    asked = [key for key, row in tables.items() if not row.file and not row.unpinned()]
    overlay = folder / "every_benchmark.yaml"
    overlay.write_text(yaml.safe_dump({"benchmarks": asked, "results": str(folder / "results")}))
    return overlay


def write_bare(matrix: Run, folder: Path) -> None:
    """The bare Snakefile, and the files that its `all` and `score` ask for."""
    made = [f"out/{cell}/{file}" for cell in matrix.cells for file in ("artefacts.json", "answers.json")]
    judged = [f"out/{cell}/verdicts.{judge}.json" for cell in matrix.cells for judge in matrix.judges]
    pairwise = [judge for judge in matrix.judges if matrix.judge(judge).pairwise]
    (folder / "files.json").write_text(json.dumps({"all": made + judged, "judged": judged, "pairwise": pairwise}))
    (folder / "Snakefile").write_text(BARE)


def dry_run(arguments: list[str], cwd: Path) -> dict:
    """One `snakemake -n --quiet` in a process of its own: its time, memory and number of jobs."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "all", "--cores", "1", *arguments]
    said, took = waited(command, cwd)
    jobs = int(re.search(r"^total\s+(\d+)", said, re.M)[1])
    return {"seconds": took["cpu"], "wall": took["wall"], "memory_mb": took["memory_mb"], "jobs": jobs}


def median_of(found: list[dict]) -> dict:
    return {key: statistics.median(each[key] for each in found) for key in found[0]} | {"jobs": found[0]["jobs"]}
