"""
Scoring and reporting: from the verdicts of all cells to tables, figures and the page.

REQUIRED INPUTS:
    verdicts.<judge>.json of every cell and judge; distance.json of every cell if asked for

OUTPUTS, below <results>/<run>/:
    score.json                                index: the CSV files with their hashes
    cells.csv, scores.csv, scores_by_replicate.csv, scores_by_category.csv, utility.csv, utility_by_category.csv,
    comparisons.csv, agreement.csv, judge_quality.csv, distance.csv
    tables/patches.{csv,md}                   each patch: what it gave back, what it spoiled and what it took
    tables/<paper>_<table>.{csv,md,tex}       the tables of the papers, ours beside the printed numbers (docs/published.md)
    tables/papers.tex                         an article that holds them all
    figures/asr_by_risk.{pdf,png,csv}         the figure and the data it shows
    figures/ablation_<setting>.{pdf,png,csv}  the same for each setting in which patches of the run differ alone
    figures/<paper>_<figure>.{pdf,png,csv}    the figures of the papers, ours beside the printed numbers
    report.html                               one self-contained page

`snakemake --report FILE.html` shows the page, the figures and the table of patches with the captions of
workflow/captions, beside the times of the jobs.
"""

ABLATIONS = swept(RUN)


rule score:
    """Scoring every cell, with intervals and paired contrasts."""
    input:
        [str(path) for _cell, _judge, path in RUN.judge_files],
        [str(path) for path in RUN.distance_files],
    output:
        f"{OUT}/score.json",
    log:
        f"{OUT}/logs/score.log",
    benchmark:
        f"{OUT}/timings/score.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        **hooks.resources(RUN, "score"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "score"),
    shell:
        "python -m bitsafe score {params.run} 2>&1 | tee {log}"


rule tables:
    """Writing the tables: what each patch did beside what it cost, and those of the papers."""
    input:
        f"{OUT}/score.json",
    output:
        report(f"{OUT}/tables/patches.csv", caption="../captions/patches.rst", category="Tables"),
        f"{OUT}/tables/patches.md",
        [f"{OUT}/tables/{name}" for name in table_files(["csv"])],
    log:
        f"{OUT}/logs/tables.log",
    benchmark:
        f"{OUT}/timings/tables.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        **hooks.resources(RUN, "tables"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "tables"),
    shell:
        "python -m bitsafe tables {params.run} 2>&1 | tee {log}"


rule figures:
    """Drawing the figures, those of the run and those of the papers."""
    input:
        f"{OUT}/score.json",
    output:
        f"{OUT}/figures/asr_by_risk.csv",
        [f"{OUT}/figures/ablation_{setting}.csv" for setting in ABLATIONS],
        [f"{OUT}/figures/{name}" for name in figure_files(["csv"])],
        report(f"{OUT}/figures/asr_by_risk.png", caption="../captions/asr_by_risk.rst", category="Figures"),
        [
            report(f"{OUT}/figures/ablation_{setting}.png", caption="../captions/ablation.rst", category="Figures")
            for setting in ABLATIONS
        ],
    log:
        f"{OUT}/logs/figures.log",
    benchmark:
        f"{OUT}/timings/figures.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        **hooks.resources(RUN, "figures"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "figures"),
    shell:
        "python -m bitsafe figures {params.run} 2>&1 | tee {log}"


rule report:
    """Writing the page that people read."""
    input:
        f"{OUT}/score.json",
        f"{OUT}/tables/patches.csv",
        f"{OUT}/figures/asr_by_risk.csv",
    output:
        report(f"{OUT}/report.html", caption="../captions/report.rst", category="Report"),
    log:
        f"{OUT}/logs/report.log",
    benchmark:
        f"{OUT}/timings/report.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        **hooks.resources(RUN, "report"),
    params:
        run=hooks.always(OUT),
        recipe=hooks.recipe_of(RUN, "report"),
    shell:
        "python -m bitsafe report {params.run} 2>&1 | tee {log}"
