"""score, tables, figures, report, register: from the verdicts of all cells to tables, figures, page and register."""

from bitsafe.files import sha256_file, write_json
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run

INDEX = "score.json"  # written last, and only when every cell was there: without it the next run scores again


def score(run: Run) -> None:
    write_tables(run)
    from bitsafe.stats.csvfile import COLUMNS

    tables = [file for name in sorted(COLUMNS) if (file := run.folder / f"{name}.csv").exists()]
    read = {str(path.relative_to(run.folder)): sha256_file(path) for _cell, _judge, path in run.judge_files}
    index = {"run": run.name, "recipe": recipe("score", run), "read": read}
    write_json(run.folder / INDEX, index | {"files": {file.name: sha256_file(file) for file in tables}})


def write_tables(run: Run) -> None:
    """The CSV files, with what there is; what a cell lacks is blank, with its reason."""
    from bitsafe.stats.assemble import assemble

    (run.folder / INDEX).unlink(missing_ok=True)
    assemble(run)


def tables(run: Run) -> None:
    from bitsafe.report.patched.table import write_patches
    from bitsafe.report.published import ours, write

    write_patches(run)
    write.write_tables(run.folder / "tables", ours.Ours.of(run))


def figures(run: Run) -> None:
    from bitsafe.report.figures import write_figures
    from bitsafe.report.patched.drawing import write_ablations
    from bitsafe.report.published import ours, write

    write_figures(run)
    write_ablations(run)
    write.write_figures(run.folder / "figures", ours.Ours.of(run))


def report(run: Run) -> None:
    from bitsafe.report.html import write_report

    write_report(run)


def register(run: Run) -> None:
    from bitsafe.register.write import write_register

    write_register(run)
