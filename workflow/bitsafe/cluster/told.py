"""What Snakemake 9.27 and its Slurm plugin 2.8 leave unsaid of a group of jobs."""

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
