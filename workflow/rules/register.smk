"""
Answering for a run: the register of its artefacts, and the gate that a policy sets.

REQUIRED INPUTS, below <results>/<run>/:
    score.json, tables/near_duplicates.csv, and the index files of every cell
    the policy of the configuration (gate.policy), by content

OUTPUTS, below <results>/<run>/:
    register.csv                              a row an artefact: run, nouns, slug, control, effective_bits, steps_done, the
                                              seven steps (done, or not done: why), artefact_sha256, record_sha256, reason
    register/<slug>.json, register/<slug>.md  its record with the evidence of each step, and its model card
    gate.txt, gate.json, gate.xml             one result: for people, for programs, and as JUnit XML

The rule `gate` succeeds whatever it finds (Snakemake knows 0 and 1); `python -m bitsafe gate` carries the exit code.
"""


localrules:
    register,
    gate,


rule register:
    """Recording every artefact, with the evidence for each step of the deployment checklist."""
    input:
        f"{OUT}/score.json",
        f"{OUT}/tables/near_duplicates.csv",
        [str(path) for path in RUN.index_files],
    output:
        f"{OUT}/register.csv",
    log:
        f"{OUT}/logs/register.log",
    benchmark:
        f"{OUT}/timings/register.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        **hooks.resources(RUN, "register"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "register"),
    shell:
        "python -m bitsafe register {params.run} 2>&1 | tee {log}"


rule gate:
    """Holding the policy against the run."""
    input:
        f"{OUT}/score.json",
        [str(path) for path in RUN.index_files],
    output:
        f"{OUT}/gate.txt",
        f"{OUT}/gate.json",
        f"{OUT}/gate.xml",
    log:
        f"{OUT}/logs/gate.log",
    benchmark:
        f"{OUT}/timings/gate.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        **hooks.resources(RUN, "gate"),
    params:
        run=hooks.always(OUT),
        policy=hooks.always(RUN.config.gate.policy),
        recipe=hooks.recipe_of(RUN, "gate"),
    shell:
        "python -m bitsafe gate {params.run} --policy {params.policy:q} --out {params.run} --exit-zero 2>&1 | tee {log}"
