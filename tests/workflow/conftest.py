"""A copy of the repository in which Snakemake runs for real on one toy organism, and what a dry run plans there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.checkout import copied_to

MINI = Path(__file__).with_name("mini.yaml")
JOB = re.compile(r"^(?:local)?rule (\w+):\n((?: +.*\n)*)", re.MULTILINE)
WILDCARDS = re.compile(r"^ +wildcards: (.*)$", re.MULTILINE)


class Project:
    """A checkout in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        copied_to(folder)
        shutil.copy2(MINI, folder / "mini.yaml")

    def environment(self) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.folder / "workflow")}

    def call(self, *arguments: str, timeout: int = 600) -> subprocess.CompletedProcess:
        """Run `python ARGUMENTS` here; stdout and stderr come back together."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def snakemake(self, *arguments: str, config: str = "mini.yaml") -> subprocess.CompletedProcess:
        return self.call("-m", "snakemake", "--cores", "2", "--configfile", config, *arguments)

    def bitsafe(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.call("-m", "bitsafe", *arguments)

    def planned(self, *arguments: str, config: str = "mini.yaml") -> set[str]:
        """What a dry run would do, each job as `rule noun/noun/…`."""
        done = self.snakemake("-n", *arguments, config=config)
        assert done.returncode == 0, done.stdout
        jobs = set()
        for rule, body in JOB.findall(done.stdout):
            found = WILDCARDS.search(body)
            nouns = [part.split("=", 1)[1] for part in found[1].split(", ")] if found else []
            jobs.add(" ".join([rule, "/".join(nouns)]).strip())
        return jobs - {"all"}

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A project whose mini run is finished. Tests that change it take a copy (`project`)."""
    project = Project(tmp_path_factory.mktemp("finished"))
    done = project.snakemake()
    assert done.returncode == 0, done.stdout[-5000:]
    project.log = done.stdout
    return project


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A copy of the finished project, times kept, to change freely."""
    copied = Project.__new__(Project)
    copied.folder = tmp_path / "project"
    shutil.copytree(finished.folder, copied.folder, symlinks=True)
    return copied
