"""Becomes sitecustomize.py of a copied project: holds one step of one cell in the middle of its work, for a fault.

HOLD is `step cell`, GATE a folder. The step writes its pid to GATE/held and goes on when GATE/go is there; GATE/eat
makes it take memory instead. Snakemake itself looks after its jobs every other second, whatever it was told.
"""

import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

GATE = Path(os.environ.get("GATE", "/nonexistent"))


def hold() -> None:
    """Say that the step is here; wait for the sign to go on."""
    if (GATE / "go").exists():
        return
    (GATE / "held").write_text(str(os.getpid()))
    eaten = []
    while not (GATE / "go").exists():
        if (GATE / "eat").exists():
            eaten.append(b"x" * 200_000_000)
        time.sleep(0.1)


def before_the_folder_is_whole(files) -> None:
    """quantize and patch: everything is written, and nothing renamed."""
    original = files.whole_folder

    @contextmanager
    def whole_folder(path):
        with original(path) as beside:
            yield beside
            hold()

    files.whole_folder = whole_folder


def after_the_first_answers(files) -> None:
    """generate: some answers are in the store, and none in the index."""
    from bitsafe.generate.store import AnswerStore

    original = AnswerStore.add

    def add(store, rows):
        added = original(store, rows)
        hold()
        return added

    AnswerStore.add = add


def before_the_index(files) -> None:
    """judge: the verdicts of every replicate are there, and their index is not."""
    original = files.write_json

    def write_json(path, value):
        if Path(path).name.startswith("verdicts."):
            hold()
        original(path, value)

    files.write_json = write_json


WAYS = {
    "quantize": before_the_folder_is_whole,
    "patch": before_the_folder_is_whole,
    "generate": after_the_first_answers,
    "judge": before_the_index,
}


def looked_after_often() -> None:
    from snakemake_executor_plugin_slurm import Executor

    Executor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)


called = sys.orig_argv[1:]
if called[:2] == ["-m", "bitsafe"] and " ".join([called[2], called[4]]) == os.environ.get("HOLD"):
    import bitsafe.files

    WAYS[called[2]](bitsafe.files)
elif called[:2] == ["-m", "snakemake"] and "slurm" in called:
    looked_after_often()
