"""Benchmark rows: whatever the source looks like, one shape comes out, checked.

`{"id": str, "messages": [{"role", "content"}, …, last one user], "category": str, "cluster": str, "reference": [str]}`,
and where the row of the table names a `task` (`bitsafe.data.tasks`):
- `extra`: what its scorer needs besides;
- `after`: the id of the row whose answer this one goes on after (a later turn);
- `choices`, `opens` and `right` of a question with options: their letters, the words that open the assistant's turn,
  and the right letter.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bitsafe.data.columns import first_of_each, left_by_sample, mapped, sampled
from bitsafe.data.messages import check_messages
from bitsafe.data.readers import read_table
from bitsafe.data.sources import locate
from bitsafe.data.turns import check_turns
from bitsafe.errors import UserError
from bitsafe.files import sha256_json, sha256_text

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Loaded:
    """The rows that are kept, how many the files hold, and how many kept ones repeat another's prompt."""

    items: list[dict[str, Any]]
    in_file: int
    duplicates: int


def prompt_hash(messages: list[dict[str, str]]) -> str:
    """What makes two prompts the same item: sha256 of the last user message, case and white space levelled."""
    last = next(message["content"] for message in reversed(messages) if message["role"] == "user")
    return sha256_text(level(last))


def load_benchmark(
    row: Mapping[str, Any], root: Path, data_dir: Path | None = None, cache: Path | None = None
) -> list[dict[str, Any]]:
    """Rows of one benchmark: `row` is its row of `benchmarks.yaml` as a dict, with its `name` for messages."""
    where = f"workflow/tables/benchmarks.yaml: {row.get('name', '?')}"
    return checked_prompts(load_rows(row, root, data_dir, cache, where).items, row, where)


def checked_prompts(rows: list[dict], row: Mapping[str, Any], where: str) -> list[dict]:
    """The rows up to the table row's `limit`, each a prompt with what the table row promises; else a UserError."""
    rows = rows[: row.get("limit")]
    for item in rows:
        check_messages(item["messages"], f"{where}: row {item['id']}", ends_with="user")
        if row.get("reference") and not item["reference"]:
            raise UserError(f"{where}: row {item['id']}: no `reference` facts, and the row of the table promises them")
        if bool(item.get("choices")) != (row.get("asks") == "choice"):
            raise UserError(f"{where}.asks: {row.get('asks')}: `choice` is for rows with options, and for no others")
    check_turns(rows, where)
    return rows


def load_rows(row: Mapping[str, Any], root: Path, data_dir: Path | None, cache: Path | None, where: str) -> Loaded:
    """Locate, read, map and filter; ids and prompts are unique. Roles and `limit` are the caller's."""

    def at(file: Mapping[str, Any], key: str) -> Path:
        return locate(file, root, data_dir, cache, f"{where}.{key}" if key else where)

    parts = {name: (at(file, f"parts.{name}"), file) for name, file in (row.get("parts") or {}).items()}
    beside = {name: (at(file, f"beside.{name}"), file) for name, file in (row.get("beside") or {}).items()}
    files = parts or {"": (at(row, ""), row)}
    counted = _Counted()
    items = _chosen(_all_rows(row, files, beside, counted, where), row)
    path = next(iter(files.values()))[0]
    if not items:
        raise UserError(f"{path}: no rows are left: mend the file or `where` of {where}")
    return Loaded(items, counted.total, _check_unique(items, row.get("duplicates") or 0, path))


class _Counted:
    """How many records went by."""

    total = 0

    def __call__(self, records: Iterable[dict]) -> Iterator[dict]:
        for record in records:
            self.total += 1
            yield record


def _all_rows(row: Mapping[str, Any], files: dict, beside: dict, counted: _Counted, where: str) -> Iterator[dict]:
    """Rows of every file in order; of a part, with its name as their category and before their number."""
    for part, (path, file) in files.items():
        records = counted(read_table(path, file.get("format", "jsonl")))
        if row.get("task"):
            yield from _by_task(row["task"], records, beside, path, where)
        else:
            found = mapped(records, row, path, where)
            yield from (_of_part(item, part) if part else item for item in found)


def _of_part(item: dict, part: str) -> dict:
    name = f"{part}-{item['id']}"
    return item | {"id": name, "cluster": name, "category": item["category"] or part}


def _by_task(task: str, records: Iterator[dict], beside: dict, path: Path, where: str) -> Iterator[dict]:
    tables = {name: list(read_table(file, kept.get("format", "jsonl"))) for name, (file, kept) in beside.items()}
    try:
        yield from import_module(task).rows(records, tables)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}.task: {path} is not what {task} reads ({error!r}): mend the row or the file"
        ) from error


def _chosen(items: Iterator[dict], row: Mapping[str, Any]) -> list[dict]:
    if row.get("sample"):
        items = sampled(items, row["sample"])
    if row.get("leave_out"):
        items = left_by_sample(items, row["leave_out"])
    return first_of_each(items, row["per_category"]) if row.get("per_category") else list(items)


def _check_unique(items: list[dict], declared: int, path: Path) -> int:
    """How many rows repeat an earlier one's prompt: as many as are declared at most; they join its cluster."""
    ids: set[str] = set()
    prompts: dict[str, dict] = {}
    repeated = 0
    for item in items:
        if item["id"] in ids:
            raise UserError(f"{path}: row {item['id']}: this id stands there twice: make ids unique")
        ids.add(item["id"])
        same = sha256_json([[m.get("role"), level(str(m.get("content")))] for m in item["messages"]] + _after(item))
        first = prompts.setdefault(same, item)
        if first is not item:
            repeated += 1
            item["cluster"] = first["cluster"]
        if repeated > declared:
            remedy = "remove one of them, or declare with `duplicates` how many there are"
            raise UserError(f"{path}: row {item['id']}: the same prompt as row {first['id']}: {remedy}")
    return repeated


def _after(item: dict) -> list[str]:
    """Later turns of two conversations may say the same."""
    return [item["after"]] if item.get("after") else []


def level(text: str) -> str:
    """Case and white space levelled."""
    return _SPACE.sub(" ", text).strip().lower()
