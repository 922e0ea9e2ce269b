"""A run as one file, to be kept or to go on elsewhere: `python -m bitsafe archive` and `unpack` (docs/disk.md).

Beside the folder's files it holds archive.json: their hashes, and Snakemake's records of them. No path of the machine
goes along: config.json loses `data_dir`, and logs and states name the checkout and the run's folder as a fresh clone
would.
"""

import hashlib
import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bitsafe import __version__
from bitsafe.errors import UserError
from bitsafe.files import PART, read_json, told_plainly, whole_folder
from bitsafe.hooks import lock
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.sharing.records import moved, records, restore

CONTENTS = "archive.json"
MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.xz": "w:xz"}
HOME = Path("results")  # where an archive's records say that the run lies
CHUNK = 1 << 20


def archive(run: Run, out: Path, weights: bool = True) -> None:
    """Write the run as a tar file, whole or not at all. weights: the artefacts too, which are nearly all its bytes."""
    mode = next((MODES[end] for end in MODES if out.name.endswith(end)), None)
    if mode is None:
        raise UserError(f"{out}: its name says how it is written: {', '.join(MODES)}")
    if out.exists():
        raise UserError(f"{out}: there is such a file already: delete it, or give another name")
    half = out.with_name(f".{out.name}{PART}")
    with told_plainly(out), lock(run.folder / ".lock"):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(half, mode) as tar:
                files = {file: put(tar, run, file) for file in files_of(run.folder, weights)}
                found = {file: moved(one, run.folder, HOME / run.name) for file, one in records(str(run.folder), files)}
                contents = {"bitsafe": __version__, "weights": weights, "files": files, "records": found}
                add(tar, f"{run.name}/{CONTENTS}", json.dumps(contents, ensure_ascii=False).encode(), None)
            half.replace(out)
        finally:
            half.unlink(missing_ok=True)
    said = "" if weights else ", no weights"
    print(f"{out}: {len(files)} files{said}, {out.stat().st_size / 1e6:.1f} MB, {len(found)} records of Snakemake")
    if not found:
        print("no records: call this where `snakemake` was called, or a recipe that moves later is passed over there")


def files_of(folder: Path, weights: bool) -> Iterator[str]:
    """What goes along, below the run's folder: nothing that is half-written, and no training that was interrupted."""
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        half = any(part.startswith(".") and part.endswith((PART, ".lock")) for part in parts)
        unfinished = file.name.startswith("training.") and file.suffix == ".safetensors"
        if file.is_file() and not half and not unfinished and (weights or "artefact" not in parts[:-1]):
            yield "/".join(parts)


def put(tar: tarfile.TarFile, run: Run, file: str) -> str:
    """Add a file of the run; its sha256 as it stands in the archive."""
    path = run.folder / file
    if (text := without_paths(run, file)) is not None:
        return add(tar, f"{run.name}/{file}", text.encode("utf-8", "backslashreplace"), path)
    with path.open("rb") as stream:
        hashing = Hashing(stream)
        tar.addfile(header(f"{run.name}/{file}", path.stat().st_size, path), hashing)
    return hashing.digest.hexdigest()


def add(tar: tarfile.TarFile, name: str, data: bytes, path: Path | None) -> str:
    tar.addfile(header(name, len(data), path), BytesIO(data))
    return hashlib.sha256(data).hexdigest()


def header(name: str, size: int, path: Path | None) -> tarfile.TarInfo:
    """A plain file with the time of `path`, by which Snakemake knows what is newer; of nobody in particular."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    info.mtime = path.stat().st_mtime if path else 0
    return info


class Hashing:
    """A stream that remembers the sha256 of what was read of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.digest = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.digest.update(data)
        return data


def without_paths(run: Run, file: str) -> str | None:
    """The text of a file that may name places of this machine, without them; None for every other file."""
    path = run.folder / file
    if file == "config.json":
        return json.dumps(read_json(path) | {"results": str(HOME), "data_dir": None}, indent=1, ensure_ascii=False)
    if not file.startswith("logs/") and path.name != "status.json":
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    places = {str(run.folder.absolute()): str(HOME / run.name), str(run.folder): str(HOME / run.name)}
    places |= {str(ROOT): ".", str(Path.home()): "~"}
    for place, name in places.items():
        text = text.replace(place, name)
    return text


def unpack(file: Path, results: Path) -> None:
    """Lay an archive's run below `results`, every file checked by its hash; on any fault nothing is left there."""
    with readable(file) as tar:
        name = next((PurePosixPath(member.name).parts[0] for member in tar), "")
    target = results / name
    if target.exists():
        raise UserError(f"{target}: there is such a run already: move it away, or name another results folder")
    with readable(file) as tar, whole_folder(target) as folder:
        contents = checked(file, folder, dict(taken(file, tar, folder)))
        (folder / CONTENTS).unlink()
    restore(contents["records"], HOME / name, target)
    missing = "" if contents["weights"] else "; its weights were left out: docs/disk.md says what that means"
    print(f"{target}: {len(contents['files'])} files, each as it was archived{missing}")


@contextmanager
def readable(file: Path) -> Iterator[tarfile.TarFile]:
    """The open archive; one that is torn or none at all is a UserError."""
    try:
        with tarfile.open(file) as tar:
            yield tar
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        why = str(error).splitlines()[0].rstrip(":")
        raise UserError(f"{file}: not a whole archive ({why}): copy it again") from None


def taken(file: Path, tar: tarfile.TarFile, folder: Path) -> Iterator[tuple[str, str]]:
    """Write every member below `folder`; its name there and the sha256 of what was written. Plain files alone."""
    for member in tar:
        path = PurePosixPath(member.name)
        stream = tar.extractfile(member) if member.isreg() else None
        if stream is None or path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
            raise UserError(f"{file}: {member.name}: not a file of a run: this is no archive of bitsafe")
        out, hashing = folder.joinpath(*path.parts[1:]), Hashing(stream)
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("wb") as written:
            while data := hashing.read(CHUNK):
                written.write(data)
        os.utime(out, (member.mtime, member.mtime))
        yield "/".join(path.parts[1:]), hashing.digest.hexdigest()


def checked(file: Path, folder: Path, found: dict[str, str]) -> dict[str, Any]:
    """What archive.json says, when the files are those that it lists, with those hashes."""
    if found.pop(CONTENTS, None) is None:
        raise UserError(f"{file}: no {CONTENTS} in it: it was cut short, or is no archive of bitsafe: copy it again")
    contents = read_json(folder / CONTENTS)
    wrong = sorted(name for name, _ in found.items() ^ contents["files"].items())
    if wrong:
        raise UserError(f"{file}: {wrong[0]} is not the file that was archived ({len(wrong)} differ): copy it again")
    return contents
