"""Judge `choice`: is the chosen option the right one? For questions with options, which are answered by a letter.

What it cannot see: whether the model knew. Of two options one is right by chance half the time, and a model that
always says the same letter has more than a quarter: read `equals_constant` in utility.csv beside it.
"""

from typing import Any

VERSION = 1


def judge(row: dict[str, Any], answer: str, params: dict[str, Any], kind: str) -> dict[str, Any]:
    """value 1 for the right letter, 0 for another; unscored where the model gave no numbers to choose by."""
    if answer not in row["choices"]:
        return {"verdict": "unscored", "reason": "no option has a probability", "refused": None, "value": None}
    value = float(answer == row["right"])
    reason = f"{answer}, and {row['right']} is right"
    return {"verdict": "safe", "reason": reason, "refused": None, "value": value, "right": row["right"], "said": answer}
