"""Where there is a TeX, the tables compile with the standard article class, a hostile run's too."""

import re
import shutil
import subprocess

import pytest
from published_run import HARMFUL, nouns, run_of

from bitsafe.report.published.ours import Ours
from bitsafe.report.published.papers import DOCUMENT
from bitsafe.report.published.write import write_tables

PDFLATEX = shutil.which("pdflatex")
needs_tex = pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex here: apt-get install texlive-latex-recommended")
TEXT_WIDTH = 345  # points, of article on letter paper


def compiled(folder) -> str:
    """The log of a run that must end well; a file it asks for outside its folder is an error of its own."""
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", DOCUMENT]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / DOCUMENT).with_suffix(".pdf").stat().st_size > 10_000
    return done.stdout


def too_wide(log: str) -> list[float]:
    """By how many points a line of text or a table sticks out."""
    return [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]


@needs_tex
def test_the_printed_tables(tmp_path):
    write_tables(tmp_path)
    log = compiled(tmp_path)
    assert max(too_wide(log), default=0) < 1


@needs_tex
def test_with_a_hostile_run_beside_them(tmp_path):
    good = nouns("llama-2-7b-chat", "qlora", 8, "benign") | HARMFUL | {"n": 10, "asr": 0.5}
    hostile = "\\input{/etc/passwd} \\write18{id} $x$ % & # _ ^ ~ { \x1b[31m \u202e 日本 \\end{longtable} " + "y" * 5000
    ours = run_of(tmp_path / "run", scores=[good, good | {"bits": 4, "asr": None, "reason": hostile}])
    write_tables(tmp_path / "tables", Ours(ours.folder, hostile))
    log = compiled(tmp_path / "tables")
    assert "(/etc/passwd" not in log and "runsystem" not in log  # TeX says which files it opens, and what it runs
