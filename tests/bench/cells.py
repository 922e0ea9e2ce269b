"""cells: what one cell more costs, from 50 cells to 1,000, all model work left out; flat is a ratio of 1.

In a checkout of its own every step is a stub that only leaves its output, so what is left is Snakemake, ours around it,
and a shell and a Python a job (four a cell). `dry` is `snakemake -n`, `run` all jobs, `again` the start that finds
everything there. ours: CPU s a cell more on the way to 1,000 cells; peer: on the way there from 50.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from tests.bench.child import waited
from tests.checkout import copied_to

from bitsafe.files import write_text

SIZES = (52, 352, 1000)  # cells, beside full precision
BITS = [8, 4, 3, 2]
STEPS = ("dry", "run", "again")

STUB = '''"""A step that leaves its output and does nothing else."""
import sys
from pathlib import Path

step, run, *nouns = sys.argv[1:]
OF_CELL = {"quantize": "quantized/artefacts.json", "patch": "artefacts.json", "generate": "answers.json"}
OF_RUN = {
    "near_duplicates": ["tables/near_duplicates.csv"],
    "score": ["score.json"],
    "report": ["report.html"],
}
if step in ("tables", "figures"):
    from bitsafe.report.published.papers import figure_files, table_files

    OF_RUN["tables"] = ["tables/patches.csv", "tables/patches.md", "tables/papers.tex"]
    OF_RUN["tables"] += [f"tables/{name}" for name in table_files()]
    OF_RUN["figures"] = [f"figures/asr_by_risk.{kind}" for kind in ("csv", "png", "pdf")]
    OF_RUN["figures"] += [f"figures/{name}" for name in figure_files()]
if step == "judge":
    files = [f"{nouns[0]}/verdicts.{nouns[1]}.json"]
elif step in OF_CELL:
    files = [f"{nouns[0]}/{OF_CELL[step]}"]
else:
    files = OF_RUN[step]
for name in files:
    file = Path(run, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
'''


def run() -> Iterator[dict]:
    with tempfile.TemporaryDirectory(prefix="bitsafe_cells") as work:
        folder = stubbed(Path(work))
        found = {cells: measured(folder, cells) for cells in SIZES}
    for step in STEPS:
        yield row(step, {cells: sides[step] for cells, sides in found.items()})


def stubbed(folder: Path) -> Path:
    """A checkout with the stub as its steps."""
    copied_to(folder, "Snakefile", "config.yaml", "workflow", "data", "envs", "experiments", "profiles")
    write_text(folder / "workflow/bitsafe/__main__.py", STUB)
    return folder


def measured(folder: Path, cells: int) -> dict[str, dict]:
    names = [f"rtn_{k}" for k in range(cells // len(BITS))]
    config = {"run": f"cells{cells}", "matrix": [{"methods": names, "bits": BITS}], "replicates": 1}
    config["tables"] = {"methods": {name: {"base": "rtn"} for name in names}}
    file = folder / f"cells{cells}.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all", "--configfile", str(file)]
    sides = {step: waited([*command, *(["--dry-run"] if step == "dry" else [])], folder)[1] for step in STEPS}
    jobs = sum(1 for _ in (folder / "results" / config["run"] / "timings").rglob("*.tsv"))
    return {step: side | {"jobs": jobs} for step, side in sides.items()}


def row(step: str, by_size: dict[int, dict]) -> dict:
    small, middle, large = SIZES

    def each(first: int, second: int) -> float:
        return (by_size[second]["cpu"] - by_size[first]["cpu"]) / (second - first)

    ours, peer = each(middle, large), each(small, middle)
    detail = {f"{key}_{cells}": side[key] for cells, side in by_size.items() for key in ("cpu", "wall", "memory_mb")}
    return {
        "name": f"cells_{step}",
        "jobs": by_size[large]["jobs"],
        "ours": ours,
        "peer": peer,
        "peer_name": f"{small} to {middle} cells",
        "ratio": ours / peer,
        "unit": f"CPU s a cell more, {middle} to {large}",
        "n": 1,
        "spread": None,
    } | detail


if __name__ == "__main__":
    for found in run():
        print(found)
