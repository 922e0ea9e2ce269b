"""
Quantizing: one job a cell makes and proves the artefacts of all its replicates.

REQUIRED INPUTS:
    <results>/models/<model>/source.json      for a model that is fetched; shipped models enter by content hash

OUTPUTS, below <model>/<method>/<bits>bit/<risk>/quantized/:
    artefacts.json                            index: the manifest of each replicate with its hash
    rep<k>/{artefact/, manifest.json, status.json, learned_from.json}

A method of another environment runs in the core one, too, and calls its library in .envs/<environment>.
"""


rule quantize:
    """Quantizing the replicates of one cell, and proving each artefact by reloading it."""
    input:
        lambda wc: hooks.settled(workflow, RUN),
        lambda wc: hooks.checkpoint_inputs(RUN, wc.model),
    output:
        f"{CELL}/quantized/artefacts.json",
    log:
        f"{OUT}/logs/quantize/{{model}}.{{method}}.{{bits}}bit.{{risk}}.log",
    benchmark:
        f"{OUT}/timings/quantize/{{model}}.{{method}}.{{bits}}bit.{{risk}}.tsv"
    group:
        hooks.grouped(workflow, RUN, "quantize")
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        **hooks.resources(RUN, "quantize"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "quantize"),
    shell:
        "python -m bitsafe quantize {params.run} {wildcards.model}/{wildcards.method}/{wildcards.bits}bit/{wildcards.risk}"
        " --threads {resources.cpus_per_task} 2>&1 | tee {log}"
