"""`python -m bitsafe gate`: the exit code is that of the one result, whatever is printed or written of it."""

import os
import sys
from pathlib import Path

from bitsafe.exits import Exit
from bitsafe.files import write_text
from bitsafe.gate.evaluate import evaluate
from bitsafe.gate.render import FILES, FORMATS


def gate(folder: Path, policy: Path, form: str = "text", out: Path | None = None, exit_zero: bool = False) -> Exit:
    """Print the result, write gate.{txt,json,xml} into `out` if given, and return its exit code (0 if `exit_zero`)."""
    result = evaluate(folder, policy)
    for name, render in FILES.items() if out else ():
        write_text(Path(out) / name, render(result))
    say(FORMATS[form](result))
    return Exit.OK if exit_zero else result.exit


def say(text: str) -> None:
    """Print; a reader that goes away early (head, less) must not turn a finding into a pass."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
