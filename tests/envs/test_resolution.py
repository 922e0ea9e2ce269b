"""Every pip section resolves against the package index, to what its lock says, hash by hash."""

import subprocess
from pathlib import Path

import pytest

from bitsafe.matrix.tables import ROOT

ENVIRONMENTS = sorted(file.stem for file in (ROOT / "envs").glob("*.yaml"))


def make(*arguments: str) -> subprocess.CompletedProcess:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(["make", *arguments], cwd=ROOT, text=True, check=False, **pipes)


@pytest.fixture(scope="module")
def resolver() -> None:
    """The resolver, and an index that it reaches; else the tests are skipped, with the reason."""
    made = make(".envs/uv/bin/uv")
    if made.returncode:
        pytest.skip(f"uv cannot be installed here: {made.stdout.strip().splitlines()[-1]}")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_pip_section_resolves_to_its_lock(resolver, name: str, tmp_path: Path):
    """Resolved again with the lock's versions preferred: another line in it would be one that does not fit."""
    done = make("lock", f"NAME={name}", "KEEP=1", f"INTO={tmp_path}")
    if done.returncode and "error sending request" in done.stdout:
        pytest.skip(f"no package index can be reached: {done.stdout.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout
    made, lock = tmp_path / f"{name}.lock.txt", ROOT / "envs" / f"{name}.lock.txt"
    assert made.read_text() == lock.read_text(), f"say: make lock NAME={name}"
