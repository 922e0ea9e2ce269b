"""The environments of methods whose libraries cannot live beside ours: .envs/x, made from envs/x.lock.txt."""

from pathlib import Path

from bitsafe.errors import UserError
from bitsafe.matrix.tables import ROOT, suggestion

CORE = "core"
FOLDER = ROOT / ".envs"


def interpreter(environment: str) -> Path:
    """The Python of an environment; a missing one is a UserError that says how to make it."""
    known = sorted(file.stem for file in (ROOT / "envs").glob("*.yaml"))
    if environment not in known:
        raise UserError(f"workflow/tables/methods.yaml: environment: {environment!r}{suggestion(environment, known)}")
    if not (FOLDER / environment / ".installed-from-lock").exists():
        raise UserError(
            f".envs/{environment}: not installed, and a method of this run needs it: make env NAME={environment}"
        )
    return FOLDER / environment / "bin" / "python"
