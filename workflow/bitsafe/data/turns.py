"""Conversations of several turns: a row of a benchmark may go on where the answer to another row ends.

Its `after` names that row, which stands before it. Each turn is a row, an answer and a verdict of its own; the turns of
a conversation share a cluster. What is asked then holds the model's own earlier answer, so two arms are asked different
things from the second turn on.
"""

from collections.abc import Iterable, Sequence

from bitsafe.errors import UserError

Name = tuple  # what tells one answer from another in a file: id, setting of a grid, sample


def name_of(row: dict, said: dict) -> Name:
    """row: of the benchmark. said: what names the setting and sample, an answer or the expanded row itself."""
    return row["id"], said.get("setting"), said["sample"]


def waves(asked: Sequence[dict]) -> list[list[int]]:
    """Places of the rows that can be asked at once: those that follow none, then those that follow these, and so on."""
    depths: dict[str, int] = {}
    for row in asked:
        depths[row["id"]] = depths[row["after"]] + 1 if row.get("after") else 0
    deepest = max(depths.values(), default=-1)
    return [[i for i, row in enumerate(asked) if depths[row["id"]] == depth] for depth in range(deepest + 1)]


def following(row: dict, said: dict, done: dict[Name, tuple[dict, str]]) -> dict:
    """The row with all that was said before it; `done`: rows as they were asked, and their answers."""
    if not row.get("after"):
        return row
    first, answer = done[name_of({"id": row["after"]}, said)]
    reply = {"role": "assistant", "content": answer}
    return row | {"messages": [*first["messages"], reply, *row["messages"]]}


def with_conversations(pairs: Iterable[tuple[dict, dict]]) -> list[tuple[dict, dict]]:
    """Rows and their answers, as a judge reads them: each row with the conversation before it."""
    done: dict[Name, tuple[dict, str]] = {}
    found = []
    for row, answer in pairs:
        row = following(row, answer, done)
        done[name_of(row, answer)] = (row, answer["answer"])
        found.append((row, answer))
    return found


def check_turns(rows: Iterable[dict], where: str) -> None:
    """UserError for a row whose earlier turn is not among the rows before it."""
    seen = set()
    for row in rows:
        if row.get("after") and row["after"] not in seen:
            remedy = "take `limit` in place of `sample`, `leave_out` or `where`, which tear conversations"
            raise UserError(f"{where}: row {row['id']} goes on after row {row['after']}, which is left out: {remedy}")
        seen.add(row["id"])
