"""A policy held against a finished run. Reads tables, indexes and hashes; loads no model."""

from collections.abc import Iterator
from pathlib import Path

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.files import sha256_file
from bitsafe.gate.asked import Asked, asked_of, gated_cells
from bitsafe.gate.decide import decide
from bitsafe.gate.measured import Tables, check_unchanged
from bitsafe.gate.policy import Policy, read_policy
from bitsafe.gate.result import Check, Result, Status
from bitsafe.matrix.run import Run
from bitsafe.register.evidence import answer_links, artefact_links, broken, verdict_links

VERSION = 1


def evaluate(folder: Path, policy_file: Path) -> Result:
    """What the policy says of the run that lies in `folder`."""
    run, policy = Run.load(folder), read_policy(policy_file)
    if run.config.score.confidence < policy.confidence:
        have, want = run.config.score.confidence, policy.confidence
        raise UserError(
            f"{policy_file}: confidence: {want}, and the intervals of {folder} cover {have}: score the run at {want} "
            f"(`score: {{confidence: {want}}}`), or ask for less"
        )
    files, notes = check_unchanged(run.folder)
    checks = (*file_checks(run, policy), *limit_checks(run, policy, Tables.read(run.folder)))
    unset = [
        f"{axis}: no limit in this policy, so nothing is said of it" for axis in ("utility",) if not policy.utility
    ]
    about = {"policy": str(policy_file), "policy_sha256": sha256_file(policy_file), "summary": policy.summary}
    return Result(run.name, checks=checks or (nothing(policy),), files=files, notes=(*notes, *unset), **about)


def nothing(policy: Policy) -> Check:
    reason = "the run has no quantized cell, or the policy selects none of them"
    return Check("", "artefact", "cells", "", "", "", Status.NOT_MEASURED, reason)


def limit_checks(run: Run, policy: Policy, tables: Tables) -> Iterator[Check]:
    for asked in asked_of(run, policy):
        yield check_of(asked, tables)


def check_of(asked: Asked, tables: Tables) -> Check:
    """One limit, decided; numbers stand in the check as the tables have them, whatever was decided."""
    place = (str(asked.cell), asked.axis, asked.limit.key, asked.benchmark, asked.decoding, asked.judge)
    limit = abs(asked.limit.most)
    if asked.missing:
        return Check(*place, Status.NOT_MEASURED, asked.missing, limit)
    found = tables.measured(asked)
    status, reason = decide(asked.limit, found, asked.min_n, babble_counts=asked.axis == "asr")
    return Check(*place, status, reason, limit, found.value, found.low, found.high, found.n)


def file_checks(run: Run, policy: Policy) -> Iterator[Check]:
    """Whether the files at hand are those that were measured, of each cell and of full precision beside it."""
    cells = gated_cells(run, policy)
    judges = sorted({judge for axis in policy.axes().values() for judge in axis.judges or policy.judges})
    for cell in dict.fromkeys([*(cell.baseline for cell in cells), *cells]):
        reason = why_other_files(run, cell, [judge for judge in judges if judge in run.judges], policy.artefacts)
        status, said = (Status.NOT_MEASURED, reason) if reason else (Status.PASS, "its files are those recorded")
        yield Check(str(cell), "artefact", "files", "", "", "", status, said)


def why_other_files(run: Run, cell: Cell, judges: list[str], artefacts: bool) -> str:
    """Why what was measured is not what lies here; "" if it is. Artefacts are hashed only if asked for."""
    chains = [artefact_links(run, cell)] if artefacts else []
    chains += [answer_links(run, cell, artefacts), *(verdict_links(run, cell, judge) for judge in judges)]
    return next((reason for chain in chains if (reason := broken(chain))), "")
