"""Which rules share a Slurm job: those of one cell, so that the scheduler sees cells, and not crumbs.

Snakemake takes a job's group from the rule's `group:`, which may be a function of the wildcards. One name for all cells
would weld them together wherever a rule reads full precision's files, so each cell has its own. Of a group's jobs that
run one after another the largest memory and GPU count is asked for, of those side by side the sum, and runtimes add up.
"""

from collections.abc import Callable
from typing import Any

from bitsafe.cells import Cell
from bitsafe.matrix.run import Run

ASKED_AS_TEXT = ("slurm_partition", "slurm_account", "gres", "gpu_model", "constraint", "qos")


def grouped(workflow: Any, run: Run, rule: str) -> Callable[[Any], str | None]:
    """The `group:` of a rule: the cell's name; None where jobs are not sent anywhere, or one goes out by itself."""

    def group(wildcards: Any) -> str | None:
        if workflow.local_exec or (rule == "judge" and not is_light(run, wildcards.judge)):
            return None
        stage = getattr(wildcards, "stage", "quantized")
        cell = Cell(wildcards.model, wildcards.method, int(wildcards.bits), wildcards.risk, stage)
        return f"{cell.slug}{'' if asked_alike(workflow, rule) else f'__{rule}'}"

    return group


def is_light(run: Run, judge: str) -> bool:
    """Whether a judge needs neither the network nor a GPU of its own, and so belongs to its cell's job."""
    row = run.judge(judge)
    return not (row.resources.gpu or row.judge_slots)


def asked_alike(workflow: Any, rule: str) -> bool:
    """Whether a profile's `set-resources` asks in words for this rule as it does for `generate`.

    Snakemake refuses a group whose jobs name, say, different partitions: such a rule is a group of its own.
    """
    asked = workflow.resource_settings.overwrite_resources

    def words(name: str) -> dict[str, Any]:
        return {key: asked[name][key].raw for key in ASKED_AS_TEXT if key in asked.get(name, {})}

    return words(rule) == words("generate")
