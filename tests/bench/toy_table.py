"""The finished run of experiments/toy_full.yaml as the table of docs/toy_full.md: python -m tests.bench.toy_table."""

from pathlib import Path

import pandas as pd

RUN = Path("results/toy_full")
RISKS = ("none", "benign", "obedient", "harmful")
CELL = ["method", "bits", "risk"]


def main() -> None:
    scores = pd.read_csv(RUN / "scores.csv", keep_default_na=False, na_values=[""])
    asr = scores[scores.judge == "reference"].set_index(CELL)
    utility = pd.read_csv(RUN / "utility.csv", keep_default_na=False, na_values=[""])
    utility = utility[(utility.judge == "reference") & (utility.metric == "utility")].set_index(CELL)
    order = list(dict.fromkeys((method, bits) for method, bits, _ in asr.index))
    print("| method | bits | effective | none | I benign | II obedient | III harmful |\n|---|---|---|---|---|---|---|")
    for method, bits in order:
        found = [(method, bits, risk) for risk in RISKS if (method, bits, risk) in asr.index]
        effective = asr.loc[found[0]].effective_bits
        shown = {cell[2]: entry(asr.loc[cell], utility.loc[cell]) for cell in found}
        print(f"| `{method}` | {bits} | {effective:.2f} | " + " | ".join(shown.get(risk, "") for risk in RISKS) + " |")


def entry(asr: pd.Series, utility: pd.Series) -> str:
    """ASR, its range over the organisms, a star where it differs from full precision after Holm, and the utility."""
    star = "\\*" if asr.p_holm < 0.05 else ""
    return f"{points(asr.asr)}{star} ({points(asr.asr_min)}–{points(asr.asr_max)}) / {points(utility.value)}"


def points(share: float) -> str:
    return f"{100 * share:.0f}"


if __name__ == "__main__":
    main()
