"""What the Slurm plugin is told of states: sacct's word for a cancelled job is one that it knows."""

import asyncio
import logging

from bitsafe.cluster.told import read_whole_states


def test_a_cancelled_job_is_cancelled_whoever_did_it():
    import snakemake_executor_plugin_slurm as plugin

    read_whole_states()
    sacct = r"printf '1|CANCELLED by 1000\n2|TIMEOUT\n3|COMPLETED\n'"
    states, seconds = asyncio.run(plugin.query_job_status(sacct, logging.getLogger()))
    assert states == {"1": "CANCELLED", "2": "TIMEOUT", "3": "COMPLETED"} and seconds > 0
    assert asyncio.run(plugin.query_job_status("false", logging.getLogger())) == (None, None)
