"""Files appear whole or not at all; the system's refusals become one line."""

import errno
import os
from pathlib import Path

import pytest

from bitsafe.errors import UserError
from bitsafe.files import (
    read_jsonl,
    sha256_folder,
    sha256_json,
    sweep,
    told_plainly,
    whole_folder,
    write_json,
    write_text,
)


def test_a_broken_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path):
    target = tmp_path / "artefact"
    with pytest.raises(ZeroDivisionError), whole_folder(target) as out:
        (out / "half").write_text("x")
        _ = 1 / 0
    assert os.listdir(tmp_path) == []
    with whole_folder(target) as out:
        (out / "a").write_text("1")
    with whole_folder(target) as out:
        (out / "b").write_text("2")
    assert os.listdir(target) == ["b"]


def test_what_a_killed_writer_left_is_swept_away(tmp_path):
    (tmp_path / ".artefact.dead.part").mkdir()
    with whole_folder(tmp_path / "artefact"):
        pass
    assert os.listdir(tmp_path) == ["artefact"]


def test_a_swept_folder_keeps_all_but_what_is_half_written(tmp_path, monkeypatch):
    """What a kill leaves is what a write would have renamed; a folder half-filled is deleted with all that is in it."""
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "state.safetensors", "half")
    monkeypatch.undo()
    (tmp_path / ".vllm_export.part").mkdir()
    (tmp_path / ".vllm_export.part" / "model.safetensors").write_text("x")
    (tmp_path / "answers.store.jsonl").write_text("")
    (tmp_path / ".lock").write_text("")
    assert len(os.listdir(tmp_path)) == 4
    sweep(tmp_path)
    sweep(tmp_path / "absent")
    assert sorted(os.listdir(tmp_path)) == [".lock", "answers.store.jsonl"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_refusals_name_the_path_and_a_remedy(tmp_path, number):
    with pytest.raises(UserError, match=f"{tmp_path}: .*") as caught, told_plainly(tmp_path):
        raise OSError(number, os.strerror(number))
    assert "\n" not in str(caught.value)


def test_a_bad_line_is_named_with_its_number(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(UserError, match=r"rows.jsonl:3: not JSON"):
        read_jsonl(file)


def test_hashes_do_not_depend_on_order(tmp_path):
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    write_json(tmp_path / "one" / "x.json", 1)
    write_json(tmp_path / "two" / "x.json", 1)
    assert sha256_folder(tmp_path / "one") == sha256_folder(tmp_path / "two")
    write_json(tmp_path / "two" / "y.json", 1)
    assert sha256_folder(tmp_path / "one") != sha256_folder(tmp_path / "two")
