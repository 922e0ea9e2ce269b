"""Which artefacts of an interrupted run are kept: those made of just what the cell is made of now."""

from pathlib import Path

import pytest

from bitsafe.cells import Cell
from bitsafe.config import Config
from bitsafe.errors import CellError
from bitsafe.files import read_json, remove, write_json
from bitsafe.generate.engines import Served, transformers
from bitsafe.matrix.run import Run
from bitsafe.steps.patch import patch
from bitsafe.steps.quantize import quantize

RTN, MIXED = Cell("toy", "rtn", 4), Cell("toy", "rtn", 4, stage="mixed_precision_magnitude")


def run_in(folder: Path, **rows) -> Run:
    block = {"methods": ["rtn"], "bits": [4], "patches": ["mixed_precision_magnitude"]}
    return Run(Config(run="r", results=str(folder), replicates=1, matrix=[block], tables=rows))


def sha(run: Run, cell: Cell) -> str:
    return read_json(run.replicate_folder(cell, 0) / "manifest.json")["artefact_sha256"]


def test_what_is_whole_is_kept_and_a_patch_of_another_artefact_is_made_anew(tmp_path, capsys):
    """A patch's recipe says nothing of the method: that its artefact has become another one must count by itself."""
    run = run_in(tmp_path)
    quantize(run, RTN)
    patch(run, MIXED)
    first = sha(run, RTN), sha(run, MIXED)
    capsys.readouterr()
    quantize(run, RTN)
    patch(run, MIXED)
    assert capsys.readouterr().out.count("kept from an earlier run") == 2
    assert (sha(run, RTN), sha(run, MIXED)) == first

    method = run.method(RTN).model_dump()
    method["params"] = {**method["params"], "group_size": 32}
    other = run_in(tmp_path, methods={"rtn": method})
    quantize(other, RTN)
    patch(other, MIXED)
    assert "kept" not in capsys.readouterr().out
    assert sha(other, RTN) != first[0] and sha(other, MIXED) != first[1]


def test_what_a_killed_step_has_left_is_gone_after_the_next_start(tmp_path):
    run = run_in(tmp_path)
    folder = run.replicate_folder(RTN, 0)
    write_json(folder / ".artefact.dead.part" / "half.json", {})
    (folder / ".training.0.1.safetensors.dead.part").write_text("x")
    (folder / ".vllm_export.part").mkdir()
    quantize(run, RTN)
    assert not list(folder.glob(".*"))


def test_weights_that_are_not_there_are_told_with_the_remedy(tmp_path):
    run = run_in(tmp_path)
    quantize(run, RTN)
    artefact = run.replicate_folder(RTN, 0) / "artefact"
    remove(artefact)
    with (
        pytest.raises(CellError, match=rf"no weights there .*: delete {run.at(RTN)}/artefacts\.json and run again"),
        transformers.opened(Served(artefact, "float32")),
    ):
        pass
    before = sha(run, RTN)
    quantize(run, RTN)
    assert sha(run, RTN) == before and artefact.exists()
