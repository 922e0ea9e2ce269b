"""make bench-gpu: seconds and memory of every GPU job on a model of 7B's widths, into results/bench/gpu.json.

python -m tests.gpu.bench [METHOD …]: those alone, their rows in place of earlier ones. Each method is measured in a
process of its own, so that its peaks are its own and an error or a full card costs no other row. Each has its LIMIT;
what is not measured by then is left out of the rule by which its seconds are scaled (tests/gpu/rows.py).
`--small` takes a tiny model on the CPU if need be: it tests this script, and its figures mean nothing.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tests.gpu.device import machine, versions, why_not

LIMIT = {"generation": 240, "aqlm": 240}  # seconds, imports included
OTHERS = 150
NAMES = ("generation", "gptq", "awq", "quip_sharp", "qlora", "qresafe", "aqlm")
FOLDER = Path("results/bench")


def main(arguments: list[str]) -> int:
    options = asked(arguments)
    if unknown := [name for name in options.names if name not in NAMES]:
        print(f"bench-gpu: no method {unknown[0]!r}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    if options.points:
        return take(options.names[0], options.points, options.small)
    if (reason := why_not()) and not options.small:
        print(f"bench-gpu: skipped: {reason}")
        return 0
    return measure_all(options.names or list(NAMES), options.small)


def asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="METHOD", help=f"of {', '.join(NAMES)}; all if none is named")
    parser.add_argument("--small", action="store_true", help="a tiny model, without a GPU if there is none")
    parser.add_argument("--points", type=Path, help=argparse.SUPPRESS)  # of the process that measures one method
    return parser.parse_args(arguments)


def measure_all(names: list[str], small: bool) -> int:
    """Every row is written as soon as it is there; 1 if any method failed."""
    from bitsafe.files import read_json, write_json

    file = FOLDER / ("gpu_small.json" if small else "gpu.json")
    about = {"machine": machine(), "versions": versions()}
    rows = [row for row in (read_json(file) if file.exists() else []) if row["method"] not in names]
    broken = False
    for name in names:
        for row in measured(name, small):
            rows.append(row | about)
            write_json(file, rows)
            broken |= "failed" in row
            print(line_of(row), flush=True)
    print(f"{file}")
    return int(broken)


def line_of(row: dict) -> str:
    from tests.gpu.rows import line

    return line(row)


def measured(name: str, small: bool) -> list[dict]:
    """The rows of one method, from the points that its process has left; the last says why one is missing."""
    from tests.gpu.rows import failed, rows_of
    from tests.gpu.seven import SEVEN, SMALL

    file = FOLDER / f"gpu_{name}.points.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    reason = in_a_process(name, file, small)
    points = [json.loads(row) for row in file.read_text().splitlines()] if file.exists() else []
    file.unlink(missing_ok=True)
    found = rows_of(name, points, SMALL if small else SEVEN) if points else []
    return found + ([failed(name, f"{reason} ({len(points)} points measured)")] if reason else [])


def in_a_process(name: str, file: Path, small: bool) -> str:
    """Take the points of a method; "" or, in a line, why not all of them are there."""
    limit = LIMIT.get(name, OTHERS)
    command = [sys.executable, "-m", "tests.gpu.bench", name, "--points", str(file), *(["--small"] if small else [])]
    try:
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"ran past its {limit} s"
    if not ended.returncode:
        return ""
    said = [text.strip() for text in ended.stderr.splitlines() if text.strip()]
    print(ended.stderr[-2000:], file=sys.stderr)
    return f"ended with {ended.returncode}: {said[-1][:300] if said else 'without a word'}"


def take(name: str, file: Path, small: bool) -> int:
    """In a process of its own: one line a point, written as soon as it is measured."""
    from tests.gpu.points import DEPTHS, SMALL_DEPTHS, measure
    from tests.gpu.seven import SEVEN, SMALL

    shape, depths = (SMALL, SMALL_DEPTHS) if small else (SEVEN, DEPTHS)
    for layers, steps in depths[name]:
        point = measure(name, shape, layers, steps)
        with file.open("a") as stream:
            stream.write(json.dumps(point) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
