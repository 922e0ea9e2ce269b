"""The toy on a card, held against the toy on a CPU. Skipped with a reason where there is no card.

GPU_SMALL=1 runs the same code on the CPU with a few prompts: it tests this script and nothing of a GPU.
"""

import os
import subprocess
import sys

import pytest
from tests.gpu.cells import CELLS, INDEX, RETRAINED, TOY, benchmarks, length, quantized
from tests.gpu.device import machine, why_not

from bitsafe.files import read_json

SMALL = bool(os.environ.get("GPU_SMALL"))
REASON = "" if SMALL else why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"test-gpu: {REASON}")
ALIKE = 0.99  # of the answers have the same verdict


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory) -> dict[str, dict]:
    """Every cell as a process that sees no card has made and answered it."""
    folder = tmp_path_factory.mktemp("cpu")
    command = [sys.executable, "-m", "tests.gpu.cells", str(folder), *(["--small"] if SMALL else [])]
    subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=True)
    return {row["cell"]: row for row in read_json(folder / INDEX)}


@pytest.mark.parametrize("cell", CELLS[: 1 if SMALL else None], ids=str)
def test_answers_are_judged_as_those_of_the_cpu(cell, on_cpu):
    from tests.gpu.agreement import compared

    found = compared(on_cpu[str(cell)], benchmarks(SMALL), length(SMALL))
    print(f"{machine()['card']}: {cell}: {found['alike']} of {found['n']} verdicts equal, {found['texts']} texts other")
    for differing in found["differing"]:
        print(f"  {differing}")
    assert found["alike"] >= ALIKE * found["n"]


def test_a_cell_that_is_trained_on_the_card_says_the_same(on_cpu, tmp_path):
    from tests.gpu.agreement import trained_again

    made = on_cpu[str(RETRAINED)]["artefact"] if not SMALL else quantized(RETRAINED, tmp_path / "made", steps=2)
    again = quantized(RETRAINED, tmp_path / "again", **({"steps": 2} if SMALL else {}))
    rows = trained_again({"made": made, "again": again, "full": TOY}, benchmarks(SMALL), length(SMALL), tmp_path)
    for name, row in rows.items():
        print(f"{machine()['card']}: {RETRAINED}: {name}: {row}")
    assert all(row["within"] for row in rows.values())
