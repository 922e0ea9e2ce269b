"""
Measuring how far the cells lie from full precision, token by token; asked for by `distance: {tokens: …}`.

REQUIRED INPUTS, below <model>/<method>/<bits>bit/<risk>/<stage>/:
    artefacts.json, rep<k>/artefact/, and the distance.json of full precision, which itself needs its answers.json

OUTPUTS:
    distance.json                             index: every distance file with its rows and hash
    rep<k>/distance/<benchmark>.jsonl         id, cluster, n_tokens; sums over the tokens: kl, agree, nll, beyond
    rep<k>/distance/<benchmark>.safetensors   of full precision alone: the texts and its likeliest tokens in them
"""


rule distance:
    """Measuring one cell on the answers of full precision."""
    input:
        f"{CELL}/{{stage}}/artefacts.json",
        lambda wc: hooks.measured_on(RUN, wc),
        lambda wc: [ancient(path) for path in hooks.measured_after(RUN, wc)],
    output:
        f"{CELL}/{{stage}}/distance.json",
    log:
        f"{OUT}/logs/distance/{{model}}.{{method}}.{{bits}}bit.{{risk}}.{{stage}}.log",
    benchmark:
        f"{OUT}/timings/distance/{{model}}.{{method}}.{{bits}}bit.{{risk}}.{{stage}}.tsv"
    group:
        hooks.grouped(workflow, RUN, "distance")
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        **hooks.resources(RUN, "distance"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "distance"),
    shell:
        "python -m bitsafe distance {params.run}"
        " {wildcards.model}/{wildcards.method}/{wildcards.bits}bit/{wildcards.risk}/{wildcards.stage}"
        " --threads {resources.cpus_per_task} 2>&1 | tee {log}"
