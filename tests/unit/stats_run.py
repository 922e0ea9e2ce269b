"""A synthetic run for the tests of the statistics: verdict files written as strings of letters, CSV files read back."""

import csv
from pathlib import Path
from types import SimpleNamespace

from bitsafe.cells import Cell
from bitsafe.files import write_json, write_jsonl

FULL, FULL_HARMFUL = Cell("m", "full", 16), Cell("m", "full", 16, "harmful")
RTN, STE = Cell("m", "rtn", 4), Cell("m", "ste", 4, "harmful")
PATCHED, CONTROL = Cell("m", "ste", 4, "harmful", "qresafe"), Cell("m", "ste", 4, "harmful", "random_mask")
CELLS = [FULL, FULL_HARMFUL, RTN, STE, PATCHED, CONTROL]

STATES = {"H": "harmful", "S": "safe", "A": "ambiguous", "U": "unscored"}


def verdict(letter: str, number: int, text: str, cluster: str, category: str) -> dict:
    """H, S, A, U: the states (lower case: degenerate); R: refused; a digit: tenths of utility, 9 being all."""
    state = STATES.get(letter.upper(), "safe")
    value = {"9": 1.0}.get(letter, int(letter) / 10) if letter.isdigit() else None
    refused = None if state in ("ambiguous", "unscored") else letter.upper() in "RS"
    return {
        **{
            "id": f"p{number}",
            "sample": 0,
            "category": category,
            "cluster": cluster,
            "verdict": state,
            "reason": "made",
        },
        **{"refused": refused, "value": value, "degenerate": letter.islower(), "answer_sha": text},
    }


def made_run(folder: Path, **changes) -> SimpleNamespace:
    """What `assemble` reads of a run, with nothing of the rest."""
    kinds = {"forbidden": "harmful", "borderline": "over_refusal", "benign": "utility"}
    run = SimpleNamespace(
        folder=folder / "demo",
        name="demo",
        cells=CELLS,
        benchmarks={name: SimpleNamespace(kind=kind, asks=None) for name, kind in kinds.items()},
        decodings=["default"],
        judges=["keyword"],
        controls={"random_mask"},
        trained={"full", "ste"},
        copies=1,
        judge=lambda name: SimpleNamespace(module=f"bitsafe.judges.{name}", params={"made": True}),
        judge_applies=lambda judge, benchmark: True,
        settings=lambda decoding: [],
        params=lambda cell: {"tau": 0.2} if cell.is_patched else {},
        config=SimpleNamespace(
            score=SimpleNamespace(permutations=2000, confidence=0.95), distance=SimpleNamespace(tokens=0)
        ),
    )
    run.replicates = lambda model: run.copies
    vars(run).update(changes)
    return run


def judged(run, cell, benchmark, *letters, judge="keyword", decoding="default", clusters=None, categories=None):
    """Verdict files of the replicates; the text of an answer is its letter, so equal letters are equal answers."""
    for replicate, row in enumerate(letters):
        folder = run.folder / cell.path / f"rep{replicate}"
        write_json(folder / "manifest.json", {"effective_bits": cell.bits + replicate, "bytes": 1000, "seconds": 2.0})
        rows = [
            verdict(x, k, x, (clusters or {}).get(k, f"p{k}"), (categories or "a" * len(row))[k])
            for k, x in enumerate(row)
        ]
        write_jsonl(folder / "verdicts" / judge / f"{benchmark}.{decoding}.jsonl", rows)


def whole_run(folder: Path):
    """All six cells on ten harmful prompts, ten borderline ones and four benign ones; one replicate."""
    run = made_run(folder)
    forbidden = {
        FULL: "SSSSSSSSSH",
        FULL_HARMFUL: "HSSSSSSSSH",
        RTN: "SSHSSSSSSH",
        STE: "HHHHHHHHUA",
        PATCHED: "SSSSSSSuuu",
        CONTROL: "HHHHHHHHhS",
    }
    for cell, letters in forbidden.items():
        judged(run, cell, "forbidden", letters, categories="aaaaabbbbb")
        judged(run, cell, "borderline", "HHHHHHHRRR" if cell == PATCHED else "HHHHHHHHHR")
        judged(run, cell, "benign", "9955" if cell == PATCHED else "9990")
    judged(run, FULL, "forbidden", "SSSSSSSSHH", decoding="default_aa")
    judged(run, FULL, "borderline", "HHHHHHHHHR", decoding="default_aa")
    judged(run, FULL, "benign", "9990", decoding="default_aa")
    return run


def table(run, name: str) -> list[dict]:
    with (run.folder / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def one(run, name: str, cell: Cell, **match) -> dict:
    wanted = {key: str(value) for key, value in {**cell.columns(), **match}.items()}
    rows = [row for row in table(run, name) if all(row[key] == value for key, value in wanted.items())]
    assert len(rows) == 1, f"{len(rows)} rows of {name}.csv match {wanted}"
    return rows[0]


def numbers(row: dict, *names: str) -> list[float]:
    return [float(row[name]) for name in names]
