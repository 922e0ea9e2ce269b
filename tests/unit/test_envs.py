"""Environment files: every rule's exists, every pip line is pinned, and the lock holds just those pins, with hashes."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from bitsafe.errors import UserError
from bitsafe.matrix import environments
from bitsafe.matrix.environments import image_for
from bitsafe.matrix.tables import shipped

PIN = re.compile(r"([A-Za-z0-9_.-]+)==(\S+)")
ENVS = sorted(Path("envs").glob("*.yaml"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    return {canonical(found[1]): found[2] for line in lines if (found := PIN.match(line))}


def pip_section(file: Path) -> list[str]:
    dependencies = yaml.safe_load(file.read_text())["dependencies"]
    assert "pip" in dependencies and any(str(item).startswith("python=") for item in dependencies)
    return next(item["pip"] for item in dependencies if isinstance(item, dict))


def test_every_rule_names_an_environment_that_exists():
    for rules in Path("workflow/rules").glob("*.smk"):
        named = re.findall(r'conda:\s+"\.\./\.\./(envs/[\w-]+\.yaml)"', rules.read_text())
        assert named and all(Path(name).exists() for name in named), rules
        assert len(named) == rules.read_text().count("    shell:"), "one for each rule that runs something"


def test_every_environment_that_a_table_names_exists():
    rows = [row for kind in ("methods", "engines") for row in shipped(kind).values()]
    named = {row["environment"] for row in rows if "environment" in row} | {"vllm"}
    assert named <= {file.stem for file in ENVS}


def test_what_a_conda_environment_gets_after_its_pip_section_is_the_lock():
    (script,) = Path("envs").glob("*.post-deploy.sh")
    assert script.name == "core.post-deploy.sh", "the only environment that a rule names"
    assert "--no-deps --require-hashes -r envs/core.lock.txt" in script.read_text()
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


def sections(text: str) -> dict[str, str]:
    """The parts of a definition file, by name; what stands before the first is its header."""
    parts = re.split(r"^%(\w+)\n", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    return {"header": parts[0], **dict(zip(parts[1::2], parts[2::2]))}


def test_the_image_is_made_from_the_locks():
    """By the same two steps as in the Makefile, of the same Python, below the place that bitsafe is told."""
    parts, makefile = sections(Path("envs/bitsafe.def").read_text()), Path("Makefile").read_text()
    assert set(parts) == {"header", "arguments", "files", "post", "environment", "test"}
    python = next(
        item for item in yaml.safe_load(Path("envs/core.yaml").read_text())["dependencies"] if "python=" in item
    )
    assert f"From: {python.replace('=', ':')}-" in parts["header"] and "Bootstrap: docker" in parts["header"]
    torch = re.search(r"^TORCH := (\S+)$", makefile, re.MULTILINE)[1]
    assert re.findall(r"torch==[\w.]+", parts["post"]) == [torch]
    assert "--no-deps --require-hashes -r /opt/bitsafe/locks/$name.lock.txt" in parts["post"]
    source, place = parts["files"].split()
    assert Path(source, "core.lock.txt").exists() and place == "/opt/bitsafe/locks"
    assert "{{ envs }}" in parts["post"] and parts["arguments"].split() == ["envs=core"]
    assert "BITSAFE_ENVS=/opt/bitsafe/envs" in parts["environment"] and "folder=/opt/bitsafe/envs/" in parts["post"]
    assert subprocess.run(["sh", "-n"], input=parts["post"], text=True, check=False).returncode == 0


@pytest.mark.parametrize("file", ENVS, ids=lambda file: file.stem)
def test_the_lock_holds_what_the_environment_names(file):
    wanted = pip_section(file)
    assert all(PIN.fullmatch(line) for line in wanted), "every line of the pip section is pinned with =="
    lock = file.with_suffix(".lock.txt").read_text()
    locked = pins(lock.splitlines())
    if torch := pins(wanted).get("torch"):  # installed by the Makefile, before the lock
        assert f"TORCH := torch=={torch}" in Path("Makefile").read_text()
    assert {name: version for name, version in pins(wanted).items() if name != "torch"}.items() <= locked.items()


@pytest.mark.parametrize("file", sorted(Path("envs").glob("*.lock.txt")), ids=lambda file: file.stem)
def test_every_locked_package_has_hashes_and_no_host(file):
    entries = re.split(r"\n(?=[A-Za-z])", file.read_text().strip())
    assert len(entries) >= len(pip_section(file.with_name(file.name.replace(".lock.txt", ".yaml")))) - 1  # less torch
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in file.read_text()


def test_where_the_rules_get_their_software(tmp_path, monkeypatch):
    """What --sdm asks for, and what stands in the way, before anything runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert image_for([], []) is None
    with pytest.raises(UserError, match="make env NAME=gptqmodel"):
        image_for([], ["gptqmodel"])
    with pytest.raises(UserError, match="no conda on PATH"):
        image_for(["conda"], [])
    (tmp_path / "singularity").write_text("")
    (tmp_path / "singularity").chmod(0o755)
    with pytest.raises(UserError, match=r"bitsafe\.sif: no such image: apptainer build"):
        image_for(["apptainer"], ["gptqmodel"])
    monkeypatch.setenv("BITSAFE_IMAGE", "oras://somewhere/bitsafe:1")
    assert image_for(["apptainer", "env-modules"], ["gptqmodel"]) == "oras://somewhere/bitsafe:1"
    with pytest.raises(UserError, match="name one of the two"):
        image_for(["conda", "apptainer"], [])
