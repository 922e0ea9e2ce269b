"""
Scoring and reporting: from the verdicts of all cells to tables, figures and the page.

REQUIRED INPUTS:
    verdicts.<judge>.json of every cell and judge; distance.json of every cell if asked for

OUTPUTS, below <results>/<run>/:
    score.json                                index: the CSV files with their hashes
    cells.csv, scores.csv, scores_by_replicate.csv, scores_by_category.csv, utility.csv, comparisons.csv, agreement.csv,
    judge_quality.csv, distance.csv
    tables/patches.{csv,md}                   each patch: what it gave back, what it spoiled and what it took
    figures/asr_by_risk.{pdf,png,csv}         the figure and the data it shows
    figures/ablation_<setting>.{pdf,png,csv}  the same for each setting in which patches of the run differ alone
    report.html                               one self-contained page

`snakemake --report FILE.html` shows the page, the figures and the table of patches with the captions of
workflow/captions, beside the times of the jobs.
"""


rule score:
    """Scoring every cell, with intervals and paired contrasts."""
    input:
        [str(path) for _cell, _judge, path in RUN.judge_files()],
        [str(path) for path in RUN.distance_files()],
    output:
        f"{OUT}/score.json",
    log:
        f"{OUT}/logs/score.log",
    benchmark:
        f"{OUT}/timings/score.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        run=lambda wc: OUT,
        recipe=recipe("score", RUN),
    shell:
        "python -m bitsafe score {params.run} 2>&1 | tee {log}"


rule tabulate:
    """Tabulating what each patch did beside what it cost."""
    input:
        f"{OUT}/score.json",
    output:
        report(f"{OUT}/tables/patches.csv", caption="../captions/patches.rst", category="Tables"),
        f"{OUT}/tables/patches.md",
    log:
        f"{OUT}/logs/tabulate.log",
    benchmark:
        f"{OUT}/timings/tabulate.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        run=lambda wc: OUT,
        recipe=recipe("tabulate", RUN),
    shell:
        "python -m bitsafe tabulate {params.run} 2>&1 | tee {log}"


rule plot:
    """Plotting the figures."""
    input:
        f"{OUT}/score.json",
    output:
        f"{OUT}/figures/asr_by_risk.csv",
        [f"{OUT}/figures/ablation_{setting}.csv" for setting in swept(RUN)],
        report(f"{OUT}/figures/asr_by_risk.png", caption="../captions/asr_by_risk.rst", category="Figures"),
        [
            report(f"{OUT}/figures/ablation_{setting}.png", caption="../captions/ablation.rst", category="Figures")
            for setting in swept(RUN)
        ],
    log:
        f"{OUT}/logs/plot.log",
    benchmark:
        f"{OUT}/timings/plot.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        run=lambda wc: OUT,
        recipe=recipe("plot", RUN),
    shell:
        "python -m bitsafe plot {params.run} 2>&1 | tee {log}"


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
        mem_mb=2000,
        runtime=30,
    params:
        run=lambda wc: OUT,
        recipe=recipe("report", RUN),
    shell:
        "python -m bitsafe report {params.run} 2>&1 | tee {log}"
