"""python -m tests.bench [NAME …]: run benchmarks of the core environment and write results/bench/NAME.json."""

import json
import os
import platform
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

NAMES = ("overhead", "distortion", "quantizers")


def machine() -> dict:
    return {"cpus": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"bench: no benchmark {unknown[0]!r}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names or NAMES:
        versions = {package: version(package) for package in ("torch", "transformers", "snakemake")}
        rows = [
            row | {"machine": machine(), "versions": versions} for row in import_module(f"tests.bench.{name}").run()
        ]
        file = Path("results/bench") / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows, indent=1) + "\n")
        for row in rows:
            print(f"{row['name']}: {row['ours']:.4g} {row['unit']} against {row['peer']:.4g}, ratio {row['ratio']:.2f}")
        print(f"{file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
