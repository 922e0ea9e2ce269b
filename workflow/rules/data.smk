"""
Checking what is learned from against what is asked.

REQUIRED INPUTS:
    the prompt sets that the run names; data_dir (or the variable DATA_DIR) where there is no network

OUTPUTS, below <results>/<run>/:
    tables/near_duplicates.csv                data_set, used_for, benchmark, row, benchmark_row, kind (exact, near),
                                              similarity, containment, sha256, benchmark_sha256; no text
"""


rule near_duplicates:
    """Comparing every set that a cell learns from with every benchmark."""
    output:
        f"{OUT}/tables/near_duplicates.csv",
    log:
        f"{OUT}/logs/near_duplicates.log",
    benchmark:
        f"{OUT}/timings/near_duplicates.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        **hooks.resources(RUN, "near_duplicates"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "near_duplicates"),
    shell:
        "python -m bitsafe near_duplicates {params.run} 2>&1 | tee {log}"
