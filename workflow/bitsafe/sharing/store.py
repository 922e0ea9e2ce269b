"""Artefacts shared between runs by content, in the folder that the variable ARTEFACT_STORE names (docs/disk.md).

An entry is <store>/<first two of key>/<key>/: artefact/, beside/ (the pairs of a patch) and made.json, what its maker
said of it. The key is a hash of all that moves the artefact, so two runs with one key would make the same thing. Runs
hold hard links of an entry's files, copies where that cannot be: each survives the deletion of the other.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitsafe.errors import UserError
from bitsafe.files import PART, read_json, remove, sha256_folder, told_plainly, umask, whole_folder, write_json

VARIABLE = "ARTEFACT_STORE"
ARTEFACT, BESIDE, MADE = "artefact", "beside", "made.json"
# files of a replicate's folder that belong to its run, or to a step that goes on
DAY = 86_400  # seconds after which what is half-written was left by a killed run
OF_THE_RUN = {"manifest.json", "status.json", "learned_from.json", "answers.store.jsonl", "vllm.log"}


@dataclass(frozen=True)
class Store:
    """One folder of entries, used by any number of runs at once."""

    root: Path

    @classmethod
    def asked_for(cls) -> "Store | None":
        """The store that the environment names, made if it is not there; None where it names none."""
        if not (named := os.environ.get(VARIABLE)):
            return None
        root = Path(named).expanduser().absolute()
        with told_plainly(root):
            root.mkdir(parents=True, exist_ok=True)
        return cls(root)

    def entry(self, key: str) -> Path:
        return self.root / key[:2] / key

    def take(self, key: str, folder: Path) -> dict[str, Any] | None:
        """Put an entry's files into a replicate's folder; what its maker said, or None where there is no whole one."""
        entry = self.entry(key)
        try:
            if not (entry / MADE).exists():
                return None
            made = read_json(entry / MADE)
            if sha256_folder(entry / ARTEFACT) != made["artefact_sha256"]:
                print(f"{entry}: not what was put there: deleted, and made anew")
                remove(entry)
                return None
            with whole_folder(folder / ARTEFACT) as out:
                link_all(entry / ARTEFACT, out)
            for file in files_of(entry / BESIDE):
                (folder / file.name).unlink(missing_ok=True)
                link(file, folder / file.name)
        except FileNotFoundError:  # someone deletes it just now
            return None
        return made

    def offer(self, key: str, folder: Path, made: dict[str, Any]) -> None:
        """Put a replicate's artefact there, with what stands beside it; what cannot be shared is said, and no error."""
        from bitsafe.artefacts.artefact import POINTER

        entry = self.entry(key)
        if (folder / ARTEFACT / POINTER).exists():  # it names a place, and is small
            return
        try:
            with self._new(entry) as new:
                link_all(folder / ARTEFACT, new / ARTEFACT)
                (new / BESIDE).mkdir()
                for file in files_of(folder):
                    if file.name not in OF_THE_RUN:
                        link(file, new / BESIDE / file.name)
                write_json(new / MADE, made)
                for file in new.rglob("*"):
                    if file.is_file():
                        file.chmod(0o444)  # runs share it: whoever writes into it by mistake is refused
        except (OSError, UserError) as error:
            print(f"{folder / ARTEFACT}: not shared: {error}")

    @contextmanager
    def _new(self, entry: Path) -> Iterator[Path]:
        """A folder to fill, which becomes the entry by one rename; where another run was faster, its entry stays."""
        entry.parent.mkdir(parents=True, exist_ok=True)
        for stale in entry.parent.glob(f".{entry.name}.*{PART}"):
            if time.time() - stale.stat().st_mtime > DAY:
                remove(stale)
        new = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}.", suffix=PART))
        try:
            yield new
            new.chmod(0o777 & ~umask())
            new.rename(entry)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            remove(new)


def files_of(folder: Path) -> list[Path]:
    """The files of a folder itself, hidden ones left out."""
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def link_all(folder: Path, out: Path) -> None:
    """Every file of `folder` under the same name in `out`."""
    shutil.copytree(folder, out, copy_function=link, dirs_exist_ok=True)


def link(file: str | Path, out: str | Path) -> None:
    """A second name of a file; a copy where the file system, or its owner, allows no link."""
    try:
        os.link(file, out)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES):
            raise
        shutil.copyfile(file, out)
