"""
Generating: one job a cell answers every benchmark under every decoding, with one model load a replicate.

REQUIRED INPUTS, below <model>/<method>/<bits>bit/<risk>/<stage>/:
    artefacts.json, rep<k>/artefact/

OUTPUTS:
    answers.json                              index: every answers file with its rows and hash
    rep<k>/answers/<benchmark>.<decoding>.jsonl   id, setting (of a grid), sample, answer, n_tokens, finish, options
    rep<k>/answers.store.jsonl                every answer ever drawn, keyed by content: only missing rows are generated
"""


rule generate:
    """Answering the benchmarks with the replicates of one cell."""
    input:
        f"{CELL}/{{stage}}/artefacts.json",
    output:
        f"{CELL}/{{stage}}/answers.json",
    log:
        f"{OUT}/logs/generate/{{model}}.{{method}}.{{bits}}bit.{{risk}}.{{stage}}.log",
    benchmark:
        f"{OUT}/timings/generate/{{model}}.{{method}}.{{bits}}bit.{{risk}}.{{stage}}.tsv"
    group:
        hooks.grouped(workflow, RUN, "generate")
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        **hooks.resources(RUN, "generate"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "generate"),
    shell:
        "python -m bitsafe generate {params.run}"
        " {wildcards.model}/{wildcards.method}/{wildcards.bits}bit/{wildcards.risk}/{wildcards.stage}"
        " --threads {resources.cpus_per_task} 2>&1 | tee {log}"
