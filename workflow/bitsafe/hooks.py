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
from typing import IO, Any, NoReturn

from bitsafe.cells import Cell
from bitsafe.cluster import earlier
from bitsafe.cluster.groups import grouped as grouped  # for the rules
from bitsafe.cluster.told import read_whole_states, tell_of_groups
from bitsafe.cluster.unrecorded import forget_unrecorded
from bitsafe.config import validate
from bitsafe.errors import CellError, UserError
from bitsafe.exits import Exit
from bitsafe.files import told_plainly
from bitsafe.matrix.environments import APPTAINER, CONDA, CORE, image_for
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run
from bitsafe.resources.requests import nouns_of, rule_resources, signed
from bitsafe.sharing.store import Store

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
        recipe("generate", run, cell)
        for judge in run.judges:
            recipe("judge", run, cell, judge)
    check_judges(run)
    Store.asked_for()
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
    raise SystemExit(Exit.OPERATIONAL)


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
            _held.append(lock(run.folder / ".lock"))
            elsewhere = last_elsewhere(_held[0])
        if hasattr(workflow.executor_settings, "jobname_prefix"):
            workflow.executor_settings.jobname_prefix = earlier.name_of(run.folder)
            tell_of_groups()
            read_whole_states()
            (run.folder / ".slurm").touch()  # from now on a start without Slurm asks it too
        if (run.folder / ".slurm").exists():
            earlier.settle(run.folder, earlier.asked_for(), elsewhere)
        sign()
        forget_unrecorded(workflow, run)
    except UserError as error:
        stop(error)
    return []


def lock(file: Path) -> IO[str]:
    """Hold `file` until what this returns is closed or this process ends, however it ends: no lock is left behind."""
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
    return handle


def last_elsewhere(handle: IO[str]) -> str | None:
    """The machine on which a lock file was last held, if that is another one."""
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
    from bitsafe.steps.summarise import figures, report, tables, write_tables

    for step in (write_tables, tables, figures, report):
        try:
            step(run)
        except (UserError, CellError, OSError) as error:
            print(f"bitsafe: {step.__name__}: {error}", file=sys.stderr)
            return
    finish(run)
    print(f"Some cells failed: {run.folder}/report.html says which and why. Run again to retry them.", file=sys.stderr)


def image(workflow: Any, run: Run) -> str | None:
    """The container of all rules: None but for --sdm apptainer. What a run needs and cannot have ends it here."""
    needed = sorted({run.method(cell).environment for cell in run.cells} - {CORE})
    try:
        return image_for(deployment(workflow), needed)
    except UserError as error:
        stop(error)


def deployment(workflow: Any) -> set[str]:
    """The words of --sdm."""
    return {method.name.lower() for method in workflow.deployment_settings.deployment_method}


def shell_prefix(workflow: Any) -> str:
    """What every shell block begins with: this package, and Snakemake's own interpreter unless --sdm brings one.

    Conda and apptainer have set PATH by then, and taken PYTHONPATH away; a home's own packages stay out of both.
    """
    own = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    path = "export PYTHONNOUSERSITE=1; " if deployment(workflow) & {CONDA, APPTAINER} else own
    return f"set -euo pipefail; {path}export PYTHONPATH={shlex.quote(str(workflow.basedir))}/workflow; "


def checkpoint_inputs(run: Run, model: str) -> list[str]:
    """The index of a fetched checkpoint; models that ship with the repository enter by content hash instead."""
    if run.model(model).path is not None:
        return []
    return [f"{run.config.results}/models/{model}/source.json"]


def resources(run: Run, step: str) -> dict[str, Callable | int]:
    """Memory, wall time, GPUs and cores of the jobs of a rule (docs/resources.md)."""
    try:
        return rule_resources(run, step)
    except UserError as error:
        stop(error)


def always(text: str) -> Callable:
    """A parameter of every job alike; as a function, or `snakemake --lint` takes it for a part of a path."""
    return signed(lambda wildcards: text)


def recipe_of(run: Run, step: str) -> Callable:
    """The recipe of a job of a rule, as its parameter."""

    def value(wildcards: Any) -> str:
        return recipe(step, run, *(noun for noun in nouns_of(step, wildcards) if noun is not None))

    return signed(value)


def compared_with(run: Run) -> Callable:
    """The answers of full precision, which a pairwise judge reads beside the cell's own."""

    def files(wildcards: Any) -> list[str]:
        if not run.judge(wildcards.judge).pairwise:
            return []
        return [str(run.at(Cell(wildcards.model, "full", 16), "answers.json"))]

    return signed(files)


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
