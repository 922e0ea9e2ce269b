"""The outcomes as a table between two marks of docs/reliability.md."""

from tests.cluster.faults import FAULTS, PHASES
from tests.cluster.project import ROOT

from bitsafe.files import write_text

PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- written by make test-cluster -->", "<!-- end -->"


def write_table(record: dict, names: list[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    tail = rest.split(END)[1]
    write_text(PAGE, f"{head}{BEGIN}\n\n{table(record)}\n\n{others(record, names)}\n{END}{tail}")


def table(cases: dict[str, dict]) -> str:
    lines = [f"| fault | {' | '.join(PHASES)} |", "|---" * (len(PHASES) + 1) + "|"]
    for fault in FAULTS:
        cells = [shown(cases.get(f"{fault} / {phase}")) for phase in PHASES]
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(row: dict | None) -> str:
    if row is None:
        return "not run"
    said = row["said"] if row["ok"] else f"**failed**: {row['said']}"
    if row.get("two_writers"):
        said += f"; two writers: {len(row['two_writers'])}"
    return f"{said} ({row['seconds']} s)".replace("|", "/")


def others(record: dict, names: list[str]) -> str:
    rows = [(name, record.get(name)) for name in names if " / " not in name or "slurmdbd" in name]
    lines = ["| whole runs, and with slurmdbd | outcome |", "|---|---|"]
    lines += [f"| {name} | {'equal: ' if row and row.get('equal') else ''}{shown(row)} |" for name, row in rows]
    held, commits = sum(row["ok"] for row in record.values()), sorted({row["commit"] for row in record.values()})
    minutes = sum(row["seconds"] for row in record.values()) / 60
    counts = f"{held} of the {len(record)} cases that were run held, of {len(names)} there are; {minutes:.0f} minutes"
    return "\n".join([*lines, "", f"{counts}; commits: {', '.join(commits)}.", ""])
