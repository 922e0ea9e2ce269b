"""The exit code of every command, in one place: what a shell or a CI job learns without reading a word."""

from enum import IntEnum

from bitsafe.errors import CellError, UserError


class Exit(IntEnum):
    OK = 0
    FAILED = 1  # a cell failed; the run goes on without it
    OPERATIONAL = 2  # nothing can be said: a mistake of the user's, a file that cannot be read
    REGRESSION = 3  # the gate: a limit is shown to be broken
    NOT_MEASURED = 4  # the gate: something that the policy asks for has no number
    NOT_RESOLVABLE = 5  # the gate: so few answers, or so few readable ones, that a limit is neither kept nor broken
    INTERRUPTED = 130
    TERMINATED = 143


def exit_of(error: BaseException) -> Exit | None:
    """The exit code of what ended a command; None for a bug, which keeps its traceback."""
    if isinstance(error, UserError):
        return Exit.OPERATIONAL
    if isinstance(error, CellError):
        return Exit.FAILED
    return Exit.INTERRUPTED if isinstance(error, KeyboardInterrupt) else None
