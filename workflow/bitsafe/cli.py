"""python -m bitsafe: every step of the pipeline by hand, and what a person asks of a run."""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bitsafe import __version__
from bitsafe.cells import Cell
from bitsafe.cluster.writers import only_writer
from bitsafe.errors import CellError, UserError
from bitsafe.exits import Exit, exit_of
from bitsafe.matrix.run import Run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (exits.py): what the command says, or what ended it badly."""
    options = parser().parse_args(arguments)
    if getattr(options, "threads", None):
        set_threads(options.threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Exit.TERMINATED))  # open files are closed, processes ended
    try:
        found = options.do(options)
        return found if isinstance(found, Exit) else Exit.OK
    except (UserError, CellError, KeyboardInterrupt) as error:
        if not isinstance(error, KeyboardInterrupt):
            print(f"bitsafe: {error}", file=sys.stderr)
        return exit_of(error)
    except BrokenPipeError:  # the reader (head, less) went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


def set_threads(count: int) -> None:
    """One count for every library of a step; more threads than cores are several times slower."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(count)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m bitsafe", description=__doc__)
    top.add_argument("--version", action="version", version=f"bitsafe {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_questions(commands)
    add_steps(commands)
    add_toy(commands)
    return top


def add_questions(commands: argparse._SubParsersAction) -> None:
    """What a person asks before, during and after a run."""
    plan = commands.add_parser("plan", help="the matrix: cells, jobs, what is done, before anything runs")
    plan.add_argument("--configfile", type=Path, action="append", default=[], help="laid over config.yaml")
    plan.add_argument("--policy", type=Path, metavar="FILE", help="refuse a policy that so many prompts cannot resolve")
    planned = "bitsafe.matrix.plan:show_plan"
    plan.set_defaults(do=lambda o: call(planned, [Path("config.yaml"), *o.configfile], o.policy))

    sets = commands.add_parser("benchmarks", help="every prompt set with version, licence, rows and hash state")
    sets.add_argument("--data-dir", type=Path, metavar="DIR", help="folder looked into before the downloads")
    sets.add_argument("--configfile", type=Path, action="append", default=[], help="laid over config.yaml")
    sets.add_argument("--name", action="append", default=[], help="this set alone; may be given again")
    sets.add_argument("--fetch", action="store_true", help="download what is missing")
    show = "bitsafe.matrix.catalogue:show_benchmarks"
    sets.set_defaults(do=lambda o: call(show, o.configfile, o.data_dir, o.name, o.fetch))

    status = commands.add_parser("status", help="live progress of the matrix of a run")
    status.add_argument("run", type=Path, metavar="RUN_DIR")
    status.set_defaults(do=lambda o: call("bitsafe.matrix.plan:show_status", Run.load(o.run)))

    scores = commands.add_parser("scores", help="the score table of a finished run")
    scores.add_argument("run", type=Path, metavar="RUN_DIR")
    scores.set_defaults(do=lambda o: print(call("bitsafe.report.terminal:score_table", o.run)))

    published = commands.add_parser("published", help="the tables and figures of the papers, as printed; needs no run")
    published.add_argument("out", type=Path, metavar="FOLDER", help="gets tables/ and figures/")
    published.set_defaults(do=lambda o: call("bitsafe.report.published.write:write_published", o.out))

    batch = commands.add_parser("judge-batch", help="an `llm` judge of a whole run as batches of its provider")
    batch.add_argument("action", choices=("submit", "poll", "collect"))
    batch.add_argument("run", type=Path, metavar="RUN_DIR")
    batch.add_argument("judge")
    batch.set_defaults(do=lambda o: call("bitsafe.steps.judge_batch:judge_batch", Run.load(o.run), o.action, o.judge))

    add_archives(commands)
    add_verdicts(commands)
    config = commands.add_parser("config", help="write config.yaml, its schema and its reference page from the model")
    config.set_defaults(do=lambda o: call("bitsafe.matrix.reference:write_all"))


def add_archives(commands: argparse._SubParsersAction) -> None:
    """A run as one file, and back."""
    pack = commands.add_parser("archive", help="a run as one file, which `unpack` lays elsewhere")
    pack.add_argument("run", type=Path, metavar="RUN_DIR")
    pack.add_argument("out", type=Path, metavar="OUT.tar[.gz|.xz]")
    pack.add_argument("--no-weights", action="store_true", help="leave the artefacts out, nearly all of its bytes")
    do = "bitsafe.sharing.archive:archive"
    pack.set_defaults(do=lambda o: call(do, Run.load(o.run), o.out, not o.no_weights))

    unpack = commands.add_parser("unpack", help="lay an archived run below a results folder, every file checked")
    unpack.add_argument("archive", type=Path, metavar="ARCHIVE")
    unpack.add_argument("results", type=Path, nargs="?", default=Path("results"), metavar="RESULTS")
    unpack.set_defaults(do=lambda o: call("bitsafe.sharing.archive:unpack", o.archive, o.results))


def add_verdicts(commands: argparse._SubParsersAction) -> None:
    """What a person asks of a finished run."""
    gate = commands.add_parser(
        "gate",
        help="hold a policy against a finished run",
        description="exit code 0 pass, 3 regression, 4 not measured, 5 not resolvable at this n, 2 operational",
    )
    gate.add_argument("run", type=Path, metavar="RUN_DIR")
    gate.add_argument("--policy", type=Path, metavar="FILE", required=True)
    gate.add_argument("--format", choices=("text", "json", "junit"), default="text", help="of what is printed")
    gate.add_argument("--out", type=Path, metavar="DIR", help="write gate.txt, gate.json and gate.xml there as well")
    gate.add_argument("--exit-zero", action="store_true", help="exit 0 whatever was found, as the Snakemake rule does")
    gate.set_defaults(do=hold_gate)

    show = commands.add_parser("show", help="one cell: parameters, manifest, scores, contrasts, a few answers")
    show.add_argument("run", type=Path, metavar="RUN_DIR")
    show.add_argument("cell", type=read_cell, metavar="CELL", help="MODEL/METHOD/BITSbit/RISK[/STAGE], or its slug")
    show.add_argument("--transcripts", type=int, default=3, metavar="N", help="prompts a benchmark; 0 for none")
    show.add_argument("--unfold", action="store_true", help="show harmful answers, too")
    one = "bitsafe.questions.show:show"
    show.set_defaults(do=lambda o: call(one, Run.load(o.run), o.cell, o.transcripts, o.unfold))

    compare = commands.add_parser("compare", help="what changed between two runs, paired by prompt")
    compare.add_argument("a", type=Path, metavar="RUN_A")
    compare.add_argument("b", type=Path, metavar="RUN_B")
    compare.add_argument("--csv", type=Path, metavar="FILE", help="write every comparison there as well")
    compare.set_defaults(do=lambda o: call("bitsafe.questions.compare:compare", o.a, o.b, o.csv))


def hold_gate(options: argparse.Namespace) -> object:
    """The gate's exit code; a bug of ours is operational, too: 1 would be said of a failed cell."""
    try:
        given = (options.run, options.policy, options.format, options.out, options.exit_zero)
        return call("bitsafe.gate.command:gate", *given)
    except UserError:
        raise
    except Exception:
        traceback.print_exc()
        return Exit.OPERATIONAL


def add_steps(commands: argparse._SubParsersAction) -> None:
    """The steps, each as Snakemake calls it."""
    step(commands, "fetch_model", "a checkpoint by its pinned revision", "model")
    step(commands, "quantize", "quantize the replicates of one cell", "cell")
    step(commands, "patch", "patch the replicates of one cell", "cell")
    step(commands, "generate", "answer the benchmarks with one cell", "cell")
    step(commands, "judge", "judge the answers of one cell with one judge", "cell", "judge")
    step(commands, "distance", "measure how far one cell lies from full precision", "cell")
    step(commands, "near_duplicates", "compare what cells learn from with what they are asked")
    step(commands, "score", "score every cell, with intervals and paired contrasts")
    step(commands, "tables", "write the tables: of patches, and of the papers with ours beside")
    step(commands, "figures", "draw the figures, of the run and of the papers")
    step(commands, "report", "write report.html")
    step(commands, "register", "record every artefact with the evidence for each step of the deployment checklist")


STEPS = {name: f"bitsafe.steps.{name}:{name}" for name in ("fetch_model", "quantize", "patch", "generate", "judge")}
STEPS |= {"distance": "bitsafe.distance.step:distance"}
STEPS |= {"near_duplicates": "bitsafe.steps.near_duplicates:near_duplicates"}
STEPS |= {name: f"bitsafe.steps.summarise:{name}" for name in ("score", "tables", "figures", "report", "register")}


def step(commands: argparse._SubParsersAction, name: str, summary: str, *nouns: str) -> None:
    command = commands.add_parser(name, help=summary, description=summary)
    command.add_argument("run", type=Path, metavar="RUN_DIR", help="results/<run>, with its config.json")
    for noun in nouns:
        command.add_argument(noun, type=read_cell if noun == "cell" else str)
    command.add_argument("--threads", type=int, default=1)

    def do(options: argparse.Namespace) -> None:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("bitsafe").setLevel(logging.INFO)
        run_step(name, Run.load(options.run), [getattr(options, noun) for noun in nouns])

    command.set_defaults(do=do)


def run_step(name: str, run: Run, nouns: list[Cell | str]) -> None:
    """Run one step; whatever ends it badly stands in the status file of the cell, or of the cell's judge."""
    for cell in (noun for noun in nouns if isinstance(noun, Cell)):
        check_known(run, cell)
    what = " ".join([name, *(noun.slug if isinstance(noun, Cell) else noun for noun in nouns)])
    with only_writer(run.folder, what):
        try:
            call(STEPS[name], run, *nouns)
        except Exception as error:
            tell(name, run, nouns, error)
            raise


def tell(name: str, run: Run, nouns: list[Cell | str], error: Exception) -> None:
    from bitsafe.steps.status import tell_unless_told

    for cell in (noun for noun in nouns if isinstance(noun, Cell)):
        folders = [run.replicate_folder(cell, k) for k in range(run.replicates(cell.model))]
        below = {"judge": ["verdicts", str(nouns[-1])], "distance": ["distance"]}.get(name, [])
        tell_unless_told([folder.joinpath(*below) for folder in folders], " ".join([name, *below[1:]]), error)


def check_known(run: Run, cell: Cell) -> None:
    if not run.has(cell):
        where = f"{run.folder}/config.json"
        raise UserError(f"{where}: the run has no cell {cell}: `python -m bitsafe status {run.folder}` lists them")


def read_cell(text: str) -> Cell:
    try:
        return Cell.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_toy(commands: argparse._SubParsersAction) -> None:
    """The embedded toy: training it again, and promoting what was trained."""
    train = commands.add_parser("train_toy", help="train one organism of the embedded toy")
    train.add_argument("out", type=Path, metavar="FOLDER")
    train.add_argument("organism", type=int)
    train.set_defaults(do=lambda o: call("bitsafe.toy.build:train_toy", o.out, [o.organism]), threads=1)
    promote = commands.add_parser("promote_toy", help="put freshly trained organisms into data/toy")
    promote.add_argument("built", type=Path, metavar="FOLDER", help="results/toy_train")
    promote.set_defaults(do=lambda o: call("bitsafe.toy.promote:promote", o.built, Path("data")))


def call(target: str, *arguments: object) -> object:
    """Call `module:function`, imported only now: a command pays for what it uses."""
    module, function = target.split(":")
    return getattr(import_module(module), function)(*arguments)
