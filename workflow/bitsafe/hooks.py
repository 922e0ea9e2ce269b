"""What the Snakefile calls: reading the configuration, starting and ending a run, and the resources of a rule."""

import errno
import fcntl
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from bitsafe.cells import Cell
from bitsafe.cluster import earlier
from bitsafe.cluster.groups import grouped as grouped  # for the rules
from bitsafe.cluster.told import tell_of_groups
from bitsafe.cluster.unrecorded import forget_unrecorded
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


def start(workflow: Any, run: Run) -> None:
    """Leave the configuration in the run's folder, which is this process's own, for the steps to read."""
    settled(workflow, run)
    if not workflow.local_exec:  # Snakemake's own handler waits for all that run; jobs elsewhere are cancelled instead
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run.save()
    except UserError as error:
        stop(error)


def settled(workflow: Any, run: Run) -> list[str]:
    """No input: what has to be done before Snakemake looks at files, by the process that will start jobs alone.

    It takes the run's folder, ends the Slurm jobs that an earlier start left behind, and names those to come so that
    the next start finds them.
    """
    will_start = workflow.exec_mode.name == "DEFAULT" and workflow.executor_plugin is not None
    if _held or not will_start or workflow.dryrun or workflow.touch:
        return []
    try:
        with told_plainly(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
            elsewhere = lock(run.folder / ".lock")
        if hasattr(workflow.executor_settings, "jobname_prefix"):
            workflow.executor_settings.jobname_prefix = earlier.name_of(run.folder)
            tell_of_groups()
            (run.folder / ".slurm").touch()  # from now on a start without Slurm asks it too
        if (run.folder / ".slurm").exists():
            earlier.settle(run.folder, earlier.asked_for(), elsewhere)
        sign()
        forget_unrecorded(workflow, run)
    except UserError as error:
        stop(error)
    return []


def lock(file: Path) -> str | None:
    """Hold `file` until this process ends, however it ends: a killed run leaves no lock behind.

    Returns the machine on which it was last held, if that is another one.
    """
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
    _held.append(handle)
    handle.seek(0)
    _process, _on, machine = handle.read().strip().rpartition(" on ")
    return machine if machine and machine != socket.gethostname() else None


def sign() -> None:
    """Write into the lock file who holds it."""
    _held[0].truncate(0)
    _held[0].write(f"process {os.getpid()} on {socket.gethostname()}")
    _held[0].flush()


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
    from bitsafe.steps.summarise import plot, report, tabulate, write_tables

    for step in (write_tables, tabulate, plot, report):
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
    cell, baseline = measured(wildcards)
    return str(run.at(baseline, "answers.json" if cell == baseline else "distance.json"))


def measured_after(run: Run, wildcards: Any) -> list[str]:
    """What the distance of a cell does not read but waits for: its own answers.

    Within one Slurm job the two would otherwise run side by side, on twice the GPUs and memory.
    """
    cell, baseline = measured(wildcards)
    return [] if cell == baseline else [str(run.at(cell, "answers.json"))]


def measured(wildcards: Any) -> tuple[Cell, Cell]:
    """The cell of a distance, and its baseline."""
    cell = Cell(wildcards.model, wildcards.method, int(wildcards.bits), wildcards.risk, wildcards.stage)
    return cell, cell.baseline
