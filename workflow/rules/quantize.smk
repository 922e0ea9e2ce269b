"""
Quantizing: one job a cell makes and proves the artefacts of all its replicates.

REQUIRED INPUTS:
    <results>/models/<model>/source.json      for a model that is fetched; shipped models enter by content hash

OUTPUTS, below <model>/<method>/<bits>bit/<risk>/quantized/:
    artefacts.json                            index: the manifest of each replicate with its hash
    rep<k>/{artefact/, manifest.json, status.json, learned_from.json}
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
        **hooks.resources(RUN),
    params:
        run=lambda wc: OUT,
        recipe=lambda wc: recipe("quantize", RUN, Cell(wc.model, wc.method, int(wc.bits), wc.risk)),
    shell:
        "python -m bitsafe quantize {params.run} {wildcards.model}/{wildcards.method}/{wildcards.bits}bit/{wildcards.risk}"
        " --threads {threads} 2>&1 | tee {log}"
