"""The answers of a replicate as they come: an append-only file of JSON lines, keyed by what was asked and how.

It is no declared output of Snakemake, so it outlives a killed or repeated job. A row is in the file or not: each batch
is one write, flushed to disk; a line torn by a kill is cut off when the file is opened next, and asked again.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from bitsafe.errors import UserError
from bitsafe.files import told_plainly

# The `finish` of what is no answer of the model, and so nothing to judge: its logits were no numbers, or an endpoint
# kept its answer back.
UNANSWERED = {"no_numbers", "content_filter", "no_content"}


class AnswerStore:
    """`store[key]` is {"answer", "n_tokens", "finish"}. One process writes; the keys are content hashes."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        with told_plainly(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("a+b", buffering=0)
        self._rows = self._read()

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> dict:
        return self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, rows: Iterable[tuple[str, dict]]) -> int:
        """Append the rows that are new, in one write that has reached the disk when this returns; how many."""
        new = {key: row for key, row in rows if key not in self._rows}
        lines = "".join(json.dumps({"key": key, **row}, ensure_ascii=False) + "\n" for key, row in new.items())
        left = memoryview(lines.encode("utf-8", "backslashreplace"))
        with told_plainly(self.path):
            while left:
                left = left[self._stream.write(left) :]
            os.fsync(self._stream.fileno())
        self._rows |= new
        return len(new)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> "AnswerStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, dict]:
        self._stream.seek(0)
        data = self._stream.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._stream.truncate(whole)
        rows = {}
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                row = json.loads(line)
                rows.setdefault(row.pop("key"), row)
            except (ValueError, KeyError, AttributeError) as error:
                raise UserError(
                    f"{self.path}:{number}: not an answer ({error}): delete that line and run again"
                ) from error
        return rows
