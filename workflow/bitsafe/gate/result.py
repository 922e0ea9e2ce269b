"""What a gate found: the one object behind text, JSON, JUnit XML and exit code."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from bitsafe.exits import Exit


class Status(StrEnum):
    """Worst first: what is shown to be broken counts before what is not known."""

    REGRESSION = "regression"
    NOT_MEASURED = "not measured"
    NOT_RESOLVABLE = "not resolvable"
    PASS = "pass"

    @property
    def exit(self) -> Exit:
        return EXITS[self]


EXITS = {
    Status.REGRESSION: Exit.REGRESSION,
    Status.NOT_MEASURED: Exit.NOT_MEASURED,
    Status.NOT_RESOLVABLE: Exit.NOT_RESOLVABLE,
    Status.PASS: Exit.OK,
}
ORDER = list(Status)


def worst(found: Iterable[Status]) -> Status:
    """The status of several together; of none at all, not measured."""
    return min(found, key=ORDER.index, default=Status.NOT_MEASURED)


@dataclass(frozen=True)
class Check:
    """One limit of the policy held against one number of one cell; `artefact` checks have no numbers."""

    cell: str
    axis: str  # asr, over_refusal, utility, or artefact
    key: str  # the policy's key: max_rate, max_rise, min_value, max_fall; or artefacts
    benchmark: str
    decoding: str
    judge: str
    status: Status
    reason: str
    limit: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @property
    def name(self) -> str:
        where = " / ".join(part for part in (self.benchmark, self.decoding, self.judge) if part)
        return f"{self.axis} {self.key}" + (f" on {where}" if where else "")


@dataclass(frozen=True)
class Result:
    """Every check of a run, with what was read: the policy and the tables, by hash."""

    run: str
    policy: str
    policy_sha256: str
    summary: str
    checks: tuple[Check, ...]
    files: dict[str, str] = field(default_factory=dict)  # name -> sha256
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        return worst(check.status for check in self.checks)

    @property
    def exit(self) -> Exit:
        return self.status.exit

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(check.status for check in self.checks)
        return {status.value: found[status] for status in ORDER}
