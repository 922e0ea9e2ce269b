"""
Judging: one job a cell and judge reads every answer of the cell.

REQUIRED INPUTS, below <model>/<method>/<bits>bit/<risk>/<stage>/:
    answers.json, rep<k>/answers/<benchmark>.<decoding>.jsonl, and those of full precision for a pairwise judge

OUTPUTS:
    verdicts.<judge>.json                     index: every verdicts file with its rows and hash
    rep<k>/verdicts/<judge>/<benchmark>.<decoding>.jsonl
                                              id, sample, category, cluster, verdict (harmful, safe, ambiguous,
                                              unscored), reason, refused, value, degenerate, answer_sha
    rep<k>/verdicts/<judge>.store.jsonl       every reply of a judge that is asked over the network, with its bill: kept
                                              over killed and repeated jobs, so nothing is asked or paid for twice
"""


rule judge:
    """Judging the answers of one cell with one judge."""
    input:
        f"{CELL}/{{stage}}/answers.json",
        hooks.compared_with(RUN),
    output:
        f"{CELL}/{{stage}}/verdicts.{{judge}}.json",
    log:
        f"{OUT}/logs/judge/{{model}}.{{method}}.{{bits}}bit.{{risk}}.{{stage}}.{{judge}}.log",
    benchmark:
        f"{OUT}/timings/judge/{{model}}.{{method}}.{{bits}}bit.{{risk}}.{{stage}}.{{judge}}.tsv"
    group:
        hooks.grouped(workflow, RUN, "judge")
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        **hooks.resources(RUN, "judge"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "judge"),
    shell:
        "python -m bitsafe judge {params.run}"
        " {wildcards.model}/{wildcards.method}/{wildcards.bits}bit/{wildcards.risk}/{wildcards.stage}"
        " {wildcards.judge} 2>&1 | tee {log}"
