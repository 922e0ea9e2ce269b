"""
Patching: one job a repaired (or control) cell makes and proves the artefacts of all its replicates. What follows,
re-generating and re-judging, are the same rules `generate` and `judge` on the stage named after the patch.

REQUIRED INPUTS, below <model>/<method>/<bits>bit/<risk>/:
    quantized/artefacts.json, quantized/rep<k>/artefact/

OUTPUTS, below <model>/<method>/<bits>bit/<risk>/<patch>/:
    artefacts.json, rep<k>/{artefact/, manifest.json, status.json, learned_from.json}
    rep<k>/pairs.jsonl                        preference pairs: full-precision answer, quantized answer, their class
    rep<k>/scored.jsonl                       instead, of a patch without pairs: the full-precision answers it scored
"""


rule patch:
    """Patching the replicates of one quantized cell, and proving each artefact by reloading it."""
    input:
        f"{CELL}/quantized/artefacts.json",
    output:
        f"{CELL}/{{stage}}/artefacts.json",
    log:
        f"{OUT}/logs/patch/{{model}}.{{method}}.{{bits}}bit.{{risk}}.{{stage}}.log",
    benchmark:
        f"{OUT}/timings/patch/{{model}}.{{method}}.{{bits}}bit.{{risk}}.{{stage}}.tsv"
    wildcard_constraints:
        stage=rf"(?!quantized/){NAME}",
    group:
        hooks.grouped(workflow, RUN, "patch")
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        **hooks.resources(RUN, "patch"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "patch"),
    shell:
        "python -m bitsafe patch {params.run}"
        " {wildcards.model}/{wildcards.method}/{wildcards.bits}bit/{wildcards.risk}/{wildcards.stage}"
        " --threads {resources.cpus_per_task} 2>&1 | tee {log}"
