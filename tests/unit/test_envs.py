"""Environment files: every rule's exists, every pip line is pinned, and the lock holds just those pins, with hashes."""

import re
from pathlib import Path

import pytest
import yaml

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
        named = re.findall(r'conda:\s+"\.\./\.\./(envs/\w+\.yaml)"', rules.read_text())
        assert named and all(Path(name).exists() for name in named), rules


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
