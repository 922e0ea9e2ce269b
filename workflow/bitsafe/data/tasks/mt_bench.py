"""MT-Bench (Zheng et al. 2306.05685): 80 questions of two turns, in eight categories; a row a turn.

The second turn's row goes on after the first's (`after`). extra: `turn`; `turns`, both user messages;
`reference_answers`, one a turn, or None where there are none.
"""

from collections.abc import Iterable, Iterator, Mapping

from bitsafe.data.columns import row_of

VERSION = 2


def rows(records: Iterable[dict], beside: Mapping[str, list[dict]]) -> Iterator[dict]:
    """Both turns of each question. Reference answers: those of the file beside, or without one the question's own."""
    answers = {row["question_id"]: row["choices"][0]["turns"] for row in beside.get("reference_answers", [])}
    for record in records:
        question, turns = record["question_id"], record["turns"]
        found = answers.get(question) if "reference_answers" in beside else record.get("reference")
        extra = {"turns": turns, "reference_answers": found or None}
        before = None
        for turn, text in enumerate(turns, 1):
            name = str(question) if before is None else f"{question}-{turn}"
            more = {"extra": extra | {"turn": turn}} | ({"after": before} if before else {})
            yield row_of(name, [{"role": "user", "content": text}], record["category"], str(question), **more)
            before = name
