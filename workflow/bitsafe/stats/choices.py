"""Is a model that chooses among options any better than one that always says the same letter?

Published rows of SafetyBench equal the score of answering A to every question (arXiv 2502.15799, Table 7: two cells, to
0.04 points in all seven categories), and with two to four options of unequal frequency that score is 36 to 38 %, not
25 %. So the bar of a choice is the best constant predictor: the letter that is right most often, said always.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitsafe.files import read_jsonl

COLUMNS = ("constant_share", "constant_letter", "constant_value", "equals_constant")


def constant_columns(files: Sequence[Path], low: float) -> dict[str, Any]:
    """Columns of utility.csv from the verdict files of the judge `choice`; `low`: lower bound of the accuracy.

    constant_letter, constant_share: the letter said most often, and its share of the scored answers. constant_value: the
    accuracy of the best constant predictor on the same questions. equals_constant: the accuracy's interval contains
    it, or lies below it: the cell is not shown to be better than a letter said always.
    """
    pairs = [(row["said"], row["right"]) for file in files for row in read_jsonl(file) if "said" in row]
    if not pairs:
        return {}
    said, right = (Counter(letters) for letters in zip(*pairs))
    letter, count = max(said.items(), key=lambda item: (item[1], item[0]))
    best = max(right.values()) / len(pairs)
    return dict(zip(COLUMNS, (count / len(pairs), letter, best, bool(low <= best))))
