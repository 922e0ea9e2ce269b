"""What Snakemake 9.27 and its Slurm plugin 2.8 leave unsaid of a group of jobs, or do not understand of Slurm."""

import functools
from typing import Any


@functools.cache
def tell_of_groups() -> None:
    """Let a group say why it failed, and let one that could not be submitted fail.

    `GroupJob.log_error` drops the message it is given: sbatch's complaint, or Slurm's word (TIMEOUT, OUT_OF_MEMORY).
    And the plugin's last resort for an error before sbatch, such as an account that is not the user's, asks a group for
    the `rule` that only a single job has; it dies of that unseen, and the run waits for ever.
    """
    from snakemake.jobs import GroupJob
    from snakemake.logging import logger

    original = GroupJob.log_error

    def log_error(group: Any, msg: str | None = None, aux_logs: list | None = None, **facts: Any) -> None:
        if msg:
            logger.error(f"{group.groupid}: {msg}")
        original(group, msg, aux_logs, **facts)

    GroupJob.log_error = log_error
    GroupJob.rule = property(lambda group: next(iter(group.jobs)).rule)


@functools.cache
def read_whole_states() -> None:
    """Let a job that was cancelled count as cancelled when `sacct` is asked.

    sacct calls it `CANCELLED by 1000`, with the user that did it; the plugin compares the whole text with its list of
    states, takes what it does not know for a job that still runs, and waits for ever.
    """
    import snakemake_executor_plugin_slurm as plugin

    original = plugin.query_job_status

    async def query_job_status(*arguments: Any) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = await original(*arguments)
        return states and {job: state.partition(" ")[0] for job, state in states.items()}, seconds

    plugin.query_job_status = query_job_status
