"""Judge `contains`: does the answer hold the gold answer? The in-accuracy of arXiv 2502.15799 on HotpotQA.

Both are normalised as SQuAD's scorer does (Rajpurkar et al. 1606.05250): lower case, no punctuation, no articles,
single spaces; and so are quotation marks of every kind, and words that a hyphen, dash or slash joins also count apart.
The gold answer must stand there as whole words: the paper says "contained", by which the gold answer
`no` would stand in `nothing`.

What it cannot see: a right answer in other words, and a wrong one that names the gold answer on its way. A long answer
has more chances than a short one, so a model that babbles names may gain.
"""

import re
import string
import unicodedata
from typing import Any

VERSION = 2

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_JOINTS = re.compile(r"[-‐‑‒–—―/]")  # of two words, or of two numbers
_QUOTES = str.maketrans({**dict.fromkeys("‘’‚‛′", "'"), **dict.fromkeys("“”„‟″«»", '"'), "…": "..."})


def judge(row: dict[str, Any], answer: str, params: dict[str, Any], kind: str) -> dict[str, Any]:
    """value 1 if one of the row's reference answers stands in the answer, else 0."""
    found = next((gold for gold in row["reference"] if contains(answer, gold)), None)
    reason = "no reference answer in it" if found is None else f"holds {found!r}"
    return {"verdict": "safe", "reason": reason, "refused": None, "value": float(found is not None)}


def contains(answer: str, gold: str) -> bool:
    """Whether the gold answer stands in the answer as whole words, both normalised."""
    if not normalised(gold):  # an answer of articles or signs alone
        return gold.strip().lower() in answer.lower()
    return any(f" {normalised(form(gold))} " in f" {normalised(form(answer))} " for form in (str, parted))


def parted(text: str) -> str:
    """The words that a hyphen, dash or slash joins apart: `New York` stands in `New York-based`."""
    return _JOINTS.sub(" ", text)


def normalised(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES).lower()
    return " ".join(_ARTICLES.sub(" ", text.translate(_PUNCTUATION)).split())
