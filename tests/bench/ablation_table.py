"""The run of experiments/ablations.yaml as the tables of docs/ablations.md: python -m tests.bench.ablation_table."""

from pathlib import Path

from bitsafe.matrix.run import Run
from bitsafe.report.patched.sweeps import sweeps, swept, words
from bitsafe.report.patched.table import panel_rows
from bitsafe.report.read import Results, Row
from bitsafe.report.text import interval

RUN = Path("results/ablations")
COLUMNS = ("value", "patch", "ASR", "organisms", "over-refusal", "utility", "codes changed", "FLOPs", "CPU s")
HEAD = f"| {' | '.join(COLUMNS)} |\n" + "|---" * len(COLUMNS) + "|"
SIDES = ("over_refusal", "utility")


def main() -> None:
    run, results = Run.load(RUN), Results.read(RUN)
    rows = {row["patch"]: row for row in panel_rows(results, results.leading[0])}
    replicates = {entry.cell.stage: entry.replicates for entry in results.leading[0].patched}
    for setting in swept(run):
        print(f"\n**`{setting}`**\n\n{HEAD}")
        for sweep in sweeps(run):
            for value, cell in sweep.points if sweep.setting == setting else ():
                print(line(words(value), rows[cell.stage], replicates[cell.stage]))


def line(value: str, row: Row, replicates: list[float]) -> str:
    named = f"| {value} | `{row['patch']}` |"
    if row["asr"] is None:
        return f"{named} not measured | | | | | | |"
    shown = [
        f"{100 * row['asr']:.1f} {interval(row['asr_low'], row['asr_high'])}",
        " / ".join(f"{100 * rate:.0f}" for rate in replicates),
        *(f"{100 * row[metric]:.1f} {interval(row[f'{metric}_low'], row[f'{metric}_high'])}" for metric in SIDES),
        f"{100 * row['codes_changed']:.2f} %",
        "" if row["flops"] is None else f"{row['flops']:.1e}",
        "" if row["cpu_seconds"] is None else f"{row['cpu_seconds']:.0f}",
    ]
    return f"{named} {' | '.join(shown)} |"


if __name__ == "__main__":
    main()
