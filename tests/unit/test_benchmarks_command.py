"""python -m bitsafe benchmarks: what it says of files that are there, missing, wrong or not pinned."""

import re
from pathlib import Path

import pytest
import yaml
from real_data import FOLDER, needs_real_data

from bitsafe.cli import main
from bitsafe.exits import Exit
from bitsafe.files import sha256_bytes
from bitsafe.matrix import catalogue

GOOD = b"goal,label\nSing a song,yes\nHum a tune,yes\nsing  a song,no\n"


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture):
    """What the command prints of rows `one` and `two` of a user's, and its exit code."""

    def run(*options: str, **changes: object) -> tuple[int, dict[str, list[str]], str]:
        row = {"licence": "CC0-1.0", "kind": "harmful", "url": "https://x.invalid/set.csv", "format": "csv"}
        row |= {"sha256": sha256_bytes(GOOD), "columns": {"prompt": "goal"}, "duplicates": 1, **changes}
        two = {"base": "one", "where": {"label": ["yes"]}}
        config = {"results": str(tmp_path / "results"), "tables": {"benchmarks": {"one": row, "two": two}}}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
        code = main(["benchmarks", "--configfile", str(tmp_path / "mine.yaml"), "--data-dir", str(tmp_path), *options])
        out, err = capsys.readouterr()
        return code, {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}, out + err

    return run


def test_a_good_file_shows_its_rows(told, tmp_path: Path) -> None:
    (tmp_path / "renamed.csv").write_bytes(GOOD)
    code, lines, text = told("--name", "one", "--name", "two")
    assert code == Exit.OK and "toy_forbidden" not in lines
    assert lines["one"][1:] == ["harmful", "1", "CC0-1.0", "3,", "1", "twice", sha256_bytes(GOOD)[:8], "ok"]
    assert lines["two"][4:7] == ["2", "of", "3"] and "missing" not in text


def test_an_absent_file_is_no_failure_and_names_the_remedy(told) -> None:
    code, lines, text = told("--name", "one")
    assert code == Exit.OK and lines["one"][-1] == "missing"
    assert "put set.csv into" in text and "https://x.invalid/set.csv" in text and "--fetch" in text


@pytest.mark.parametrize(
    "data, changes, complaint",
    [
        (b"other bytes\n", {}, "set.csv is not the pinned file"),
        (GOOD, {"columns": {"prompt": "Goal"}}, "has no column 'Goal'; it has goal, label"),
        (GOOD, {"duplicates": None}, "row 3: the same prompt as row 1"),
        (GOOD, {"where": {"label": ["maybe"]}}, "no rows are left"),
        (b"goal,label\n ,yes\n", {"sha256": sha256_bytes(b"goal,label\n ,yes\n")}, "row 1: the prompt .* is empty"),
    ],
)
def test_what_must_not_be_used_fails(told, tmp_path: Path, data: bytes, changes: dict, complaint: str) -> None:
    (tmp_path / "set.csv").write_bytes(data)
    code, lines, text = told("--name", "one", **changes)
    assert code == Exit.OPERATIONAL and lines["one"][-1] == "WRONG"
    assert re.search(complaint, text) and "benchmarks.one" in text.splitlines()[-1]


def test_a_file_that_is_not_pinned_is_told_with_its_hash(told, tmp_path: Path) -> None:
    code, lines, text = told("--name", "one", sha256=None)
    assert code == Exit.OK and lines["one"][-2:] == ["not", "pinned"] and "not known to us" in text
    (tmp_path / "set.csv").write_bytes(GOOD)
    code, lines, text = told("--name", "one", sha256=None)
    assert code == Exit.OK and f"has sha256 {sha256_bytes(GOOD)}" in text and "-" in lines["one"]


def test_a_second_known_copy_says_so(told, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_bytes(GOOD)
    _code, lines, _text = told("--name", "one", sha256=["0" * 64, sha256_bytes(GOOD)])
    assert lines["one"][-4:] == ["ok,", "a", "known", "copy"]


def test_what_is_missing_is_fetched_on_demand(told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsafe.data import sources

    monkeypatch.setattr(sources, "_fetch", lambda url, name: GOOD)
    code, lines, _text = told("--name", "one", "--fetch")
    assert code == Exit.OK and lines["one"][-1] == "ok"
    assert [path.read_bytes() for path in (tmp_path / "results/downloads").iterdir()] == [GOOD]


def test_what_the_user_can_get_wrong(told, capsys: pytest.CaptureFixture) -> None:
    code, _lines, text = told("--name", "onne")
    assert code == Exit.OPERATIONAL and "no set 'onne'; did you mean 'one'?" in text
    assert main(["benchmarks", "--data-dir", "/nowhere/at/all"]) == Exit.OPERATIONAL
    assert "--data-dir: /nowhere/at/all: no such folder" in capsys.readouterr().err


def test_every_shipped_row_is_pinned_or_says_that_it_is_not() -> None:
    rows = {**catalogue.Tables().rows("benchmarks"), **catalogue.Tables().rows("datasets")}
    assert {name: row.unpinned() for name, row in rows.items() if row.unpinned()} == {
        "safetybench": ["beside.examples.sha256"]
    }
    for name, row in rows.items():
        for file in row.files().values():
            for pinned in catalogue.hashes(file.model_dump()):
                assert len(pinned.removeprefix("git:")) == (40 if catalogue.is_blob(pinned) else 64), name


@needs_real_data
def test_the_published_files_are_all_right(capsys: pytest.CaptureFixture) -> None:
    assert main(["benchmarks", "--data-dir", str(FOLDER)]) == Exit.OK
    text = capsys.readouterr().out
    assert "WRONG" not in text and "250 of 450" in text and "1,067" in text
