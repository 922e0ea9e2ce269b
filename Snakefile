# bitsafe: quantize -> generate -> judge -> patch -> re-judge -> plot, for every model × method × risk × bits cell.
#   snakemake --cores all                                          the embedded toy, into results/demo
#   snakemake --cores all --configfile experiments/smollm2.yaml    a real small chat model
#   snakemake --cores all --profile slurm                          the same on a cluster
#
# Rules are grouped by phase in workflow/rules; each phase file opens with its contract. A rule only calls
# `python -m bitsafe STEP RUN_FOLDER NOUNS`: every step runs by hand exactly as it runs here.
import sys

from snakemake.utils import min_version

min_version("9.20")
sys.path.insert(0, f"{workflow.basedir}/workflow")

from bitsafe import hooks
from bitsafe.cells import NAME, RISKS
from bitsafe.report.patched.sweeps import swept
from bitsafe.report.published.papers import figure_files, table_files


configfile: "config.yaml"


RUN = hooks.read_run(config, workflow.configfiles)
OUT = str(RUN.folder)
CELL = f"{OUT}/{{model}}/{{method}}/{{bits}}bit/{{risk}}"
shell.prefix(hooks.shell_prefix(workflow))


container: hooks.image(workflow, RUN)


wildcard_constraints:
    model=NAME,
    method=NAME,
    bits=r"\d+",
    risk="|".join(RISKS),
    stage=NAME,
    judge=NAME,


localrules:
    all,
    near_duplicates,
    score,
    tables,
    figures,
    report,


rule all:
    """Everything: scores, tables, figures and the report; of each cell, too, so that what is deleted is made again."""
    input:
        [str(path) for path in RUN.index_files],
        f"{OUT}/tables/near_duplicates.csv",
        f"{OUT}/score.json",
        f"{OUT}/tables/patches.csv",
        f"{OUT}/figures/asr_by_risk.csv",
        f"{OUT}/report.html",


include: "workflow/rules/fetch.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/quantize.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/distance.smk"
include: "workflow/rules/judge.smk"
include: "workflow/rules/patch.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/register.smk"


onstart:
    hooks.start(workflow, RUN)


onsuccess:
    hooks.finish(RUN)


onerror:
    hooks.salvage(RUN)
