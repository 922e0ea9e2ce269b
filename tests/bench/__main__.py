"""python -m tests.bench [NAME …]: run benchmarks and write results/bench/NAME.json; without a name all of NAMES."""

import json
import os
import platform
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

NAMES = (
    "overhead",
    "distortion",
    "quantizers",
    "agreement",
    "decoding_grid",
    "generation",
    "batch_plans",
    "dag",
    "growth",
)
# What lies in environments of its own, or takes long: only where it is asked for.
EXTRA = ("cells", "extra", "patch", "page", "llama_server", "aqlm_reference", "scale")


def machine() -> dict:
    return {"cpus": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}


def told(row: dict) -> str:
    """One line of a row: what it is about, ours, the peer's and their ratio."""
    about = " ".join(
        str(row[key]) for key in ("name", "experiment", "jobs", "model", "method", "bits", "what", "size") if key in row
    )
    ratio = "undefined" if row["ratio"] is None else f"{row['ratio']:.2f}"
    figures = f"{row['ours']:.4g} {row['unit']} against {row['peer']:.4g} ({row['peer_name']})"
    return f"{about}: {figures}, ratio {ratio}"


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in NAMES + EXTRA]
    if unknown:
        print(f"bench: no benchmark {unknown[0]!r}; known: {', '.join(NAMES + EXTRA)}", file=sys.stderr)
        return 2
    for name in names or NAMES:
        versions = {package: version(package) for package in ("torch", "transformers", "snakemake")}
        rows, file = [], Path("results/bench") / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        for row in import_module(f"tests.bench.{name}").run():
            rows.append(row | {"machine": machine(), "versions": versions})
            file.write_text(json.dumps(rows, indent=1) + "\n")
            print(told(row), flush=True)
        print(f"{file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
