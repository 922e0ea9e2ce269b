"""Snakemake's records of a run's files: with which parameters and inputs each was made.

They lie outside the run's folder (.snakemake/metadata, a file a record, named by the path in base64), so a folder that
is merely copied loses them: its files would count as up to date for ever, whatever becomes of their recipe.
"""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bitsafe.files import write_text

FOLDER = Path(".snakemake/metadata")
LONGEST = 255  # bytes of a file's name
# of the machine or the moment: conda's hash has the place of the environment in it, and would plan everything anew
LEFT_OUT = {"software_stack_hash", "job_hash", "external_jobid"}


def record_file(path: str, folder: Path = FOLDER) -> Path:
    """Where Snakemake keeps the record of a file, which it names as its rule does."""
    name, size = urlsafe_b64encode(path.encode()).decode(), LONGEST - 1
    *folders, last = (name[start : start + size] for start in range(0, len(name), size))
    return folder.joinpath(*(f"@{part}" for part in folders), last)


def records(run_folder: str, files: Iterable[str], folder: Path = FOLDER) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path below the run's folder and record, of the files that have one."""
    for file in files:
        if (found := record_file(f"{run_folder}/{file}", folder)).exists():
            record = json.loads(found.read_text())
            yield file, {key: value for key, value in record.items() if key not in LEFT_OUT}


def restore(found: dict[str, dict], old: Path, new: Path, folder: Path = FOLDER) -> None:
    """Write the records of a run that lay at `old` and lies at `new`, for the Snakemake that is called here."""
    for file, record in found.items():
        text = json.dumps(moved(record, old, new), ensure_ascii=False)
        write_text(record_file(f"{new}/{file}", folder), text)


def moved(value: Any, old: Path, new: Path) -> Any:
    """A record with the paths of the run, and of the models beside it, as they are at the new place."""
    if isinstance(value, dict):
        return {moved(key, old, new): moved(one, old, new) for key, one in value.items()}
    if isinstance(value, list):
        return [moved(one, old, new) for one in value]
    if not isinstance(value, str):
        return value
    for was, now in ((old, new), (old.parent / "models", new.parent / "models")):
        value = re.sub(rf"(?<![\w./-]){re.escape(str(was))}(?![\w.-])", lambda _, to=str(now): to, value)
    return value
