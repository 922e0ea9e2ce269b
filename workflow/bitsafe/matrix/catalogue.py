"""Every prompt set with its version, licence, rows and hash state: `python -m bitsafe benchmarks`."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitsafe.config import read_config
from bitsafe.data.conversations import checked_conversations
from bitsafe.data.prompts import checked_prompts, load_rows
from bitsafe.data.sources import download_to, file_names, find, hashes, is_blob, is_pinned, not_pinned
from bitsafe.errors import UserError
from bitsafe.matrix.data_rows import DatasetRow, FileRow
from bitsafe.matrix.plan import aligned
from bitsafe.matrix.tables import ROOT, Tables, suggestion

HEADINGS = {"benchmarks": "what every cell is asked", "datasets": "what cells learn from"}


@dataclass(frozen=True)
class Places:
    """Where files are looked for, and whether missing ones are fetched."""

    data_dir: Path | None
    downloads: Path
    fetch: bool


@dataclass(frozen=True)
class State:
    """One line of the catalogue; `wrong` when something that was found must not be used."""

    cells: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    wrong: bool = False


def show_benchmarks(
    configfiles: list[Path], data_dir: Path | None = None, names: list[str] | None = None, fetch: bool = False
) -> None:
    """Print every row of both tables, or those of `names`; a UserError if any file found is wrong.

    configfiles: laid over config.yaml: their rows are shown too, and their data_dir is used where none is given.
    """
    config = read_config([ROOT / "config.yaml", *configfiles])
    chosen = data_dir or config.data_dir or os.environ.get("DATA_DIR")
    if chosen and not Path(chosen).is_dir():
        raise UserError(f"--data-dir: {chosen}: no such folder")
    places = Places(Path(chosen) if chosen else None, Path(config.results) / "downloads", fetch)
    tables = Tables(config.tables)
    check_names(names or [], tables)
    wrong: list[str] = []
    for kind, heading in HEADINGS.items():
        rows = {name: row for name, row in tables.rows(kind).items() if not names or name in names}
        states = {name: state_of(kind, name, row, places) for name, row in rows.items()}
        if states:
            print(f"{kind}: {heading}\n\n{table(states)}")
        wrong += [f"{kind}.{name}" for name, state in states.items() if state.wrong]
    if wrong:
        raise UserError(f"{len(wrong)} of these sets must not be used as they are: {', '.join(wrong)}")


def check_names(names: list[str], tables: Tables) -> None:
    known = [name for kind in HEADINGS for name in tables.rows(kind)]
    for name in names:
        if name not in known:
            raise UserError(f"--name: no set {name!r}{suggestion(name, known)}")


def table(states: dict[str, State]) -> str:
    """Aligned columns, then what is to be said of each set that is not as it should be."""
    head = ("name", "kind", "version", "licence", "rows", "hash", "state")
    remarks = [f"  {name}: {remark}" for name, state in states.items() for remark in state.remarks]
    lines = [aligned([head, *((name, *state.cells) for name, state in states.items())])]
    return "\n".join([*lines, *remarks, ""] if remarks else lines)


def state_of(kind: str, name: str, row: DatasetRow, places: Places) -> State:
    """What there is of one set. The rows are read whenever every file of it is there and right."""
    where = f"workflow/tables/{kind}.yaml: {name}"
    about = (getattr(row, "kind", None) or row.risk or "-", revision(row), row.licence)
    try:
        missing = [file for key, file in row.files().items() if is_absent(key, file, places, where)]
        remarks = [*put(missing, places), *unpinned(row, places, where)]
        if remarks:
            return State((*about, "-", pins(row), "missing" if missing else "not pinned"), tuple(remarks))
        return State((*about, counted(kind, name, row, places, where), pins(row), found_state(row, places)))
    except UserError as error:
        return State((*about, "-", pins(row), "WRONG"), (str(error),), wrong=True)


def revision(row: DatasetRow) -> str:
    """Version of our row and the start of the published revision: `1 @ 098262e`."""
    return f"{row.version} @ {row.revision[:7]}" if row.revision else str(row.version)


def pins(row: DatasetRow) -> str:
    """The start of the first pinned hash; how many files, if several."""
    files = list(row.files().values())
    if not files:
        return "ships with us"
    first = (hashes(files[0].model_dump()) or ["none"])[0]
    short = first.removeprefix("git:")[:8] + (" (git)" if is_blob(first) else "")
    return short if len(files) == 1 else f"{short} and {len(files) - 1} more"


def is_absent(key: str, file: FileRow, places: Places, where: str) -> bool:
    """Whether a pinned file is not here, after fetching it if that is asked for.

    A UserError if one of its name is here with other bytes.
    """
    as_dict = file.model_dump()
    if not hashes(as_dict) or find(as_dict, places.data_dir, places.downloads, at(where, key)):
        return False
    if places.fetch:
        download_to(as_dict, places.downloads, at(where, key))
    return not places.fetch


def put(missing: list[FileRow], places: Places) -> Iterator[str]:
    """What to do about files that are not here."""
    if missing:
        named = ", ".join(" or ".join(file_names(file.model_dump())) for file in missing)
        folder = places.data_dir or "a folder that --data-dir names"
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        yield f"--fetch downloads what is missing, or put {named} into {folder} ({missing[0].url}{more})"


def found_state(row: DatasetRow, places: Places) -> str:
    """Which of the pinned hashes the set's file has."""
    for file in [file.model_dump() for file in row.files().values()]:
        path = find(file, places.data_dir, places.downloads)
        if path and not is_pinned(path, hashes(file)[:1]):
            return "ok, a known copy"
    return "ok"


def unpinned(row: DatasetRow, places: Places, where: str) -> Iterator[str]:
    """The hash of each file that is not pinned, where it can be had without asking the network unasked."""
    for key, file in row.files().items():
        as_dict = file.model_dump()
        if hashes(as_dict):
            continue
        here = places.data_dir and any((places.data_dir / name).is_file() for name in file_names(as_dict))
        if here or places.fetch:
            yield str(not_pinned(as_dict, places.data_dir, at(where, key)))
        else:
            yield f"{at(where, key)}.sha256: the hash of {file.url} is not known to us: --fetch prints it"


def at(where: str, key: str) -> str:
    return f"{where}.{key}" if key else where


def counted(kind: str, name: str, row: DatasetRow, places: Places, where: str) -> str:
    """`100 of 450` where rows are filtered or drawn, with the declared duplicates."""
    as_dict: dict[str, Any] = row.model_dump() | {"name": name}
    loaded = load_rows(as_dict, ROOT, places.data_dir, places.downloads, where)
    if kind == "benchmarks":
        rows = checked_prompts(loaded.items, as_dict, where)
    else:
        rows = checked_conversations(loaded.items, where)
    kept = len(rows[: row.limit])
    joined = "of" if kept < loaded.in_file else "in"  # more than the file's rows: turns of its conversations
    shown = f"{kept:,}" if kept == loaded.in_file else f"{kept:,} {joined} {loaded.in_file:,}"
    return shown + (f", {loaded.duplicates} twice" if loaded.duplicates else "")
