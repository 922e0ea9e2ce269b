#!/usr/bin/env bash
# Run by Snakemake in the environment that conda has just made from core.yaml, from the repository's root. The pip section
# pins what is named there; this pins what comes along with it, too, to the versions and hashes of the lock.
set -euo pipefail
python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r envs/core.lock.txt
