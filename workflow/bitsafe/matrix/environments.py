"""The environments of methods whose libraries cannot live beside ours: .envs/x, made from envs/x.lock.txt.

In an image (envs/bitsafe.def) they lie elsewhere, and the variable BITSAFE_ENVS says where.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from bitsafe.errors import UserError
from bitsafe.matrix.tables import ROOT, suggestion

CORE = "core"
FOLDER = Path(os.environ.get("BITSAFE_ENVS") or ROOT / ".envs")
IMAGE = "BITSAFE_IMAGE"  # the variable that names another image than .envs/bitsafe.sif
CONDA, APPTAINER = "conda", "apptainer"


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


def image_for(methods: Iterable[str], needed: Iterable[str]) -> str | None:
    """Check where the rules get their software from, by the words of --sdm; the image, where it is one.

    needed: environments that the run's methods name. They are venvs in .envs, whatever the rules themselves run in; an
    image brings its own, and there the job is the one to find out.
    """
    asked = set(methods) & {CONDA, APPTAINER}
    if len(asked) > 1:
        raise UserError("--sdm conda apptainer: the image holds the environment already: name one of the two")
    for command in asked:
        if not any(map(shutil.which, [command, "singularity"] if command == APPTAINER else [command])):
            raise UserError(f"--sdm {command}: no {command} on PATH: load it, or leave --sdm out and run from .venv")
    if APPTAINER in asked:
        return _image()
    for environment in needed:
        interpreter(environment)
    return None


def _image() -> str:
    """Path or URL of the image."""
    image = os.environ.get(IMAGE) or ".envs/bitsafe.sif"
    if "://" not in image and not Path(image).exists():
        remedy = f"apptainer build {image} envs/bitsafe.def, or set {IMAGE}"
        raise UserError(f"--sdm apptainer: {image}: no such image: {remedy}")
    return image
