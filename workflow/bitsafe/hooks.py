"""What the Snakefile calls: reading the configuration, starting and ending a run, and the resources of a rule."""

import errno
import fcntl
import os
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from bitsafe.cells import Cell
from bitsafe.config import validate
from bitsafe.errors import CellError, UserError
from bitsafe.files import told_plainly
from bitsafe.matrix.environments import CORE, interpreter
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import JudgeRow

_held: list[Any] = []  # the open lock file: closing it would free the lock


def read_run(config: dict, configfiles: Sequence[Path]) -> Run:
    """The run that the merged configuration describes; a mistake in it ends Snakemake with one line."""
    try:
        config = {**config, "data_dir": config.get("data_dir") or os.environ.get("DATA_DIR")}
        run = Run(validate(config, configfiles))
        check(run)
        return run
    except UserError as error:
        stop(error)


def check(run: Run) -> None:
    """Find every mistake that can be found before anything runs: unknown rows, missing files, no place to write."""
    _ = [run.decoding(name) for name in run.decodings], run.engine
    for cell in run.cells:
        recipe("patch" if cell.is_patched else "quantize", run, cell)
        if (environment := run.method(cell).environment) != CORE:
            interpreter(environment)
        recipe("generate", run, cell)
        for judge in run.judges:
            recipe("judge", run, cell, judge)
    check_judges(run)
    existing = next(folder for folder in [run.folder, *run.folder.parents] if folder.exists())
    with told_plainly(existing):
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(existing))


def check_judges(run: Run) -> None:
    """Read the rows of the judges that ask for it, as their jobs will: a model that is not named, a bad CSV file."""
    from bitsafe.steps.judge import setting_of

    for name in run.judges:
        if run.judge(name).checked:
            import_module(run.judge(name).module).check(setting_of(run, name))


def stop(error: UserError) -> NoReturn:
    print(f"bitsafe: {error}", file=sys.stderr)
    raise SystemExit(2)


def start(run: Run) -> None:
    """Take the run's folder for this process, and leave the configuration there for the steps to read."""
    try:
        with told_plainly(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
            lock(run.folder / ".lock")
        run.save()
    except UserError as error:
        stop(error)


def lock(file: Path) -> None:
    """Hold `file` until this process ends, however it ends: a killed run leaves no lock behind."""
    handle = file.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        remedy = "wait for it, stop it, or give this one another `run` name"
        raise UserError(f"{file.parent}: in use by another run ({holder}): {remedy}") from None
    except OSError:  # a file system without locks
        print(f"bitsafe: {file}: this file system has no locks; start one run at a time", file=sys.stderr)
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {socket.gethostname()}")
    handle.flush()
    _held.append(handle)


def finish(run: Run) -> None:
    """The end of a run that went well: the score table, and where the report is; nothing before the run was scored."""
    if not (run.folder / "scores.csv").exists():  # another target was asked for
        return
    from bitsafe.report.terminal import score_table

    print(score_table(run.folder))


def salvage(run: Run) -> None:
    """The end of a run in which something failed: tables and report from what there is, failed cells with a reason.

    The index of the tables is left out, so that the next run makes the missing cells and then all of this anew.
    """
    from bitsafe.steps.summarise import figures, report, tables, write_tables

    for step in (write_tables, tables, figures, report):
        try:
            step(run)
        except (UserError, CellError, OSError) as error:
            print(f"bitsafe: {step.__name__}: {error}", file=sys.stderr)
            return
    finish(run)
    print(f"Some cells failed: {run.folder}/report.html says which and why. Run again to retry them.", file=sys.stderr)


def shell_prefix(workflow: Any) -> str:
    """What every shell block begins with: this package, and Snakemake's own interpreter unless conda brings one."""
    methods = {method.name.lower() for method in workflow.deployment_settings.deployment_method}
    path = (
        ""
        if methods & {"conda", "apptainer"}
        else f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    )
    return f"set -euo pipefail; {path}export PYTHONPATH={shlex.quote(str(workflow.basedir))}/workflow; "


def checkpoint_inputs(run: Run, model: str) -> list[str]:
    """The index of a fetched checkpoint; models that ship with the repository enter by content hash instead."""
    if run.model(model).path is not None:
        return []
    return [f"{run.config.results}/models/{model}/source.json"]


def resources(run: Run) -> dict[str, Callable]:
    """Memory, wall time and GPUs of the rules that load a model, from the model's row; memory grows by attempt."""

    def of(key: str, grows: bool = False) -> Callable:
        def value(wildcards: Any, attempt: int) -> int:
            return run.model(wildcards.model).resources[key] * (attempt if grows else 1)

        return value

    return {"mem_mb": of("mem_mb", grows=True), "runtime": of("runtime"), "gpu": of("gpu")}


def judge_resources(run: Run) -> dict[str, Callable]:
    """Memory, wall time, GPUs and judge slots of a judge's job, from the judge's row over the defaults."""
    defaults = JudgeRow.model_fields["resources"].default

    def of(key: str) -> Callable:
        return lambda wildcards: {**defaults, **run.judge(wildcards.judge).resources}[key]

    return {key: of(key) for key in defaults}


def compared_with(run: Run, wildcards: Any) -> list[str]:
    """The answers of full precision, which a pairwise judge reads beside the cell's own."""
    baseline = Cell(wildcards.model, "full", 16)
    return [str(run.at(baseline, "answers.json"))] if run.judge(wildcards.judge).pairwise else []


def measured_on(run: Run, wildcards: Any) -> str:
    """What the distance of a cell rests on: full precision's answers for itself, its texts for every other cell."""
    baseline = Cell(wildcards.model, "full", 16)
    cell = Cell(wildcards.model, wildcards.method, int(wildcards.bits), wildcards.risk, wildcards.stage)
    return str(run.at(baseline, "answers.json" if cell == baseline else "distance.json"))
