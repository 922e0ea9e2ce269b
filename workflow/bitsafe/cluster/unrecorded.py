"""Files that were finished while no Snakemake watched: a job that outlived its run leaves them without a record.

Snakemake then has nothing to compare a changed recipe with and would keep such a file for ever. Each index file holds
the recipe it was made by, so those of another recipe are taken away, and made again from what the step has kept.
"""

from typing import Any

from bitsafe.matrix.progress import Job, jobs
from bitsafe.matrix.run import Run

INDEX = {"quantize": "artefacts.json", "patch": "artefacts.json", "generate": "answers.json"}
INDEX |= {"distance": "distance.json", "judge": "verdicts.{judge}.json"}


def forget_unrecorded(workflow: Any, run: Run) -> None:
    """Take away the index files of another recipe of which Snakemake has no record."""
    from snakemake.io import IOFile

    for job in jobs(run):
        file = run.at(job.cell, index_of(job))
        if job.state == "redo" and not workflow.persistence.metadata(IOFile(str(file), rule=None)):
            file.unlink(missing_ok=True)


def index_of(job: Job) -> str:
    return INDEX[job.step].format(judge=job.judge)
