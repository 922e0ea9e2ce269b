"""Files that appear whole or not at all, and hashes of what they hold."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from bitsafe.errors import UserError

REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space or set `results` to another disk, then run again",
    errno.EDQUOT: "your disk quota is used up: free some space, then run again",
    errno.EACCES: "no permission to write there: change its owner or set `results` to a folder of yours",
    errno.EPERM: "no permission to write there: change its owner or set `results` to a folder of yours",
    errno.EROFS: "that file system is read-only: set `results` to a folder you can write",
    errno.ENOTDIR: "a part of that path is a file, not a folder: move it away or set `results` elsewhere",
}


PART = ".part"  # ends the name of what is still being written


@contextmanager
def told_plainly(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into one line with a remedy."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = errno_of(error)
        if number not in REMEDIES:
            raise
        raise UserError(f"{getattr(error, 'filename', None) or path}: {REMEDIES[number]}") from error


def errno_of(error: Exception) -> int | None:
    """The system's error number; libraries written in Rust (safetensors) have it in their message only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def write_text(path: Path, text: str) -> None:
    """Write beside `path`, flush to disk, then rename over it."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    path = Path(path)
    with told_plainly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(beside, 0o666 & ~umask())
            os.replace(beside, path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise


@lru_cache(maxsize=1)
def umask() -> int:
    """The bits that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}): delete it and run again") from error


def read_jsonl(path: Path) -> list[dict]:
    """Rows of a JSON-lines file; a bad line is named with its number."""
    rows = []
    try:
        with Path(path).open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    rows.append(_parse_line(path, number, line))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return rows


def _parse_line(path: Path, number: int, line: str) -> dict:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{number}: not JSON ({error.msg}): mend or remove that line") from error
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number}: a JSON object is expected, not {type(row).__name__}")
    return row


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it takes the place of `path` only when the block ends well."""
    path = Path(path)
    with told_plainly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(f".{path.name}.*{PART}"):  # left by a killed run; one writer a cell
            remove(stale)
        beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART))
        try:
            yield beside
            os.chmod(beside, 0o777 & ~umask())
            if path.exists():
                shutil.rmtree(path)
            os.rename(beside, path)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def sweep(folder: Path) -> None:
    """Delete what killed writers have left half-written in `folder`. For a folder with one writer at a time."""
    for stale in Path(folder).glob(f".*{PART}"):
        remove(stale)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it; what is gone already is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_text(text: str) -> str:
    return sha256_bytes(text.encode("utf-8", "backslashreplace"))


def sha256_json(value: Any) -> str:
    """Hash of a JSON value that does not depend on the order of its keys."""
    return sha256_text(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))


def sha256_file(path: Path) -> str:
    """Hash of a file's bytes, remembered while its size and time stay the same."""
    stat = Path(path).stat()
    return _sha256_file(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256_file(path: str, _size: int, _mtime: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_folder(path: Path) -> str:
    """Hash of a folder: the names and hashes of its files, hidden ones left out."""
    files = sorted(p for p in Path(path).rglob("*") if p.is_file() and not p.name.startswith("."))
    return sha256_json([[str(p.relative_to(path)), sha256_file(p)] for p in files])
