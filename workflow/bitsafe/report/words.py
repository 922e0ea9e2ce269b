"""The verdict in words: statements made from table rows and nothing else. Pure functions of a panel."""

from collections.abc import Sequence

from bitsafe.report.findings import (
    FINDINGS,
    TESTED,
    Statement,
    by_finding,
    finding,
    finding_of_contrast,
    name_of,
    p_words,
    rate_words,
    why_unresolved,
)
from bitsafe.report.read import Entry, Panel
from bitsafe.report.repairs import control_words, repaired, too_dear
from bitsafe.report.text import any_of, count, listed, one_line, percent, points


def verdict(
    panel: Panel, others: Sequence[Panel] = (), controls: frozenset[str] = frozenset()
) -> list[tuple[str, list[Statement]]]:
    """What is said at the top of the page about one panel, under its headings, in the order it is read."""
    found = [
        ("Quantized, against full precision", [*changed(panel), *quantization_itself(panel), *beside(panel)]),
        *((f"After {one_line(stage)}", repaired(panel, stage)) for stage in repairs_of(panel, controls)),
        ("Controls", control_words(panel, controls)),
        (
            "What this run can tell",
            [baseline(panel), detectable(panel), *unresolved(panel), *judges_agree(panel, others)],
        ),
    ]
    return [(title, statements) for title, statements in found if statements]


def repairs_of(panel: Panel, controls: frozenset[str]) -> list[str]:
    return list(dict.fromkeys(entry.cell.stage for entry in panel.patched if entry.cell.stage not in controls))


def headline(panel: Panel, controls: frozenset[str] = frozenset()) -> str:
    """The verdict in two or three sentences."""
    found = by_finding(panel.quantized)
    tested = sum(len(found[kind]) for kind in TESTED)
    if not tested:
        return "No quantized cell could be compared with full precision."
    sentences = [f"Against full precision, ASR {_moves(found, tested, 'quantized cell')}."]
    for stage in repairs_of(panel, controls):
        entries = [entry for entry in panel.patched if entry.cell.stage == stage]
        found, dear = by_finding(entries), too_dear(entries)
        if tested := sum(len(found[kind]) for kind in TESTED):
            at_a_price = f", at too high a price in {listed(dear)}" if dear else ""
            sentences.append(f"After {one_line(stage)}, it {_moves(found, tested, 'patched cell')}{at_a_price}.")
    return " ".join(sentences)


def _moves(found: dict[str, list[Entry]], tested: int, noun: str) -> str:
    """`rose in 3 and fell in 5 of 12 quantized cells`."""
    parts = [f"{FINDINGS[kind]} in {len(found[kind])}" for kind in TESTED if found[kind] and kind != "none"]
    if not parts:
        return f"was not shown to change in {any_of(tested, noun)}"
    return f"{listed(parts)} of {count(tested, noun)}"


def baseline(panel: Panel) -> Statement:
    entry = panel.baseline
    if entry is None or not entry.measured:
        reason = one_line(entry.reason) if entry else "not in this run"
        return Statement("warn", f"Full precision was not measured ({reason}), so no difference from it can be given.")
    return Statement("info", f"Full precision: ASR {rate_words(entry.score)}.")


def changed(panel: Panel) -> list[Statement]:
    """The quantized cells against full precision."""
    found = by_finding(panel.quantized)
    tested = sum(len(found[kind]) for kind in TESTED)
    if not tested:
        return [Statement("warn", "No quantized cell could be compared with full precision.")]
    of = f"of {count(tested, 'quantized cell')} that could be read"
    statements = []
    if rose := found["rose"]:
        statements.append(Statement("bad", f"ASR rose above full precision in {len(rose)} {of}. {largest(rose)}"))
    if fell := found["fell"]:
        statements.append(Statement("info", f"ASR fell below full precision in {len(fell)} {of}. {largest(fell)}"))
    if none := found["none"]:
        deltas = [entry.score["delta"] for entry in none]
        seen = points(deltas[0]) if len(none) == 1 else f"{points(min(deltas))} to {points(max(deltas))}"
        statements.append(Statement("info", f"No change was shown in {len(none)} {of} (seen: {seen} points)."))
    return statements


def largest(entries: Sequence[Entry]) -> str:
    top = max(entries, key=lambda entry: abs(entry.score["delta"]))
    score = top.score
    return (
        f"Largest: {name_of(top.cell)}, from {percent(score.get('baseline_asr'))} to {rate_words(score)} "
        f"({points(score['delta'])} points, Holm p {p_words(score['p_holm'])})."
    )


def largest_rise(panel: Panel) -> str:
    """The worst that quantization did, with its interval; "" where ASR rose nowhere."""
    rose = by_finding(panel.quantized)["rose"]
    return largest(rose).replace("Largest:", "Largest rise:", 1) if rose else ""


def quantization_itself(panel: Panel) -> list[Statement]:
    """Bits or data? The quantized cells that were fine-tuned, against full precision that learned the same."""
    found: dict[str, list[str]] = {kind: [] for kind in FINDINGS}
    for entry in panel.quantized:
        learned = entry.contrasts.get("quantization", {}).get("baseline_cell") == str(entry.cell.same_risk_full)
        if entry.cell.risk != "none" and learned:
            found[finding_of_contrast(entry, "quantization")].append(name_of(entry.cell))
    tested = sum(len(found[kind]) for kind in TESTED)
    if not tested:
        return []
    text = "Bits or data? Against full precision trained on the same data, quantization by itself"
    parts = [f"raised ASR in {len(found['rose'])} ({listed(found['rose'], 4)})"] if found["rose"] else []
    parts += [f"lowered it in {len(found['fell'])} ({listed(found['fell'], 4)})"] if found["fell"] else []
    if parts:
        return [
            Statement("bad" if found["rose"] else "info", f"{text} {' and '.join(parts)} of {count(tested, 'cell')}.")
        ]
    return [Statement("info", f"{text} was not shown to change ASR in {any_of(tested, 'cell')}.")]


def beside(panel: Panel) -> list[Statement]:
    """What quantization did to over-refusal and utility: the worst cell of each, told beside ASR."""
    statements = []
    for metric, sign, worse in (("over_refusal", 1, "rose"), ("utility", -1, "fell")):
        measured = [entry for entry in panel.quantized if entry.beside.get(metric, {}).get("delta") is not None]
        shown = [entry for entry in measured if finding(entry.beside[metric]) == worse]
        if shown:
            worst = max(shown, key=lambda entry: sign * entry.beside[metric]["delta"])
            row = worst.beside[metric]
            text = (
                f"{_title(metric)} got significantly worse in {len(shown)} of {count(len(measured), 'quantized cell')}"
            )
            text += f", most in {name_of(worst.cell)}: {percent(row.get('baseline_value'))} to {percent(row['value'])}."
            statements.append(Statement("info", text))
        elif measured:
            statements.append(Statement("info", f"{_title(metric)} was not shown to get worse in any quantized cell."))
    return statements


def _title(metric: str) -> str:
    return metric.replace("_", "-").capitalize()


def unresolved(panel: Panel) -> list[Statement]:
    """Cells that no other statement covers, each with its reason."""
    statements = []
    if found := [entry for entry in panel.entries if finding(entry.score) == "unresolved"]:
        names = listed([f"{name_of(entry.cell)} ({why_unresolved(entry)})" for entry in found], 8)
        statements.append(Statement("warn", f"Not resolvable in {count(len(found), 'cell')}: {names}."))
    if missing := [entry for entry in panel.entries if not entry.measured]:
        names = listed([f"{name_of(entry.cell)} ({one_line(entry.reason, 90)})" for entry in missing], 8)
        statements.append(Statement("warn", f"Not measured: {count(len(missing), 'cell')}: {names}."))
    return statements


def judges_agree(panel: Panel, others: Sequence[Panel]) -> list[Statement]:
    """Whether the other judges would have led to the same findings."""
    statements = []
    for other in others:
        pairs = [(e.cell, finding(e.score), finding(o.score)) for e in panel.entries if (o := other.at(e.cell))]
        pairs = [pair for pair in pairs if "blank" not in pair]
        if not pairs:
            continue
        differ = [
            f"{name_of(cell)} ({FINDINGS[theirs]}, not {FINDINGS[ours]})"
            for cell, ours, theirs in pairs
            if ours != theirs
        ]
        text = f"The judge {one_line(other.judge)} leads to the same finding as {one_line(panel.judge)} in "
        text += f"{len(pairs) - len(differ)} of {count(len(pairs), 'comparison')}"
        statements.append(
            Statement("warn" if differ else "info", f"{text}; not for {listed(differ, 4)}." if differ else f"{text}.")
        )
    return statements


def detectable(panel: Panel) -> Statement:
    """What this run could have seen: said whatever was found."""
    where = f"On {one_line(panel.benchmark)} this run"
    if panel.mde is None:
        reasons = [entry.score["mde_reason"] for entry in panel.quantized if entry.score.get("mde_reason")]
        reason = f" ({one_line(reasons[0])})" if reasons else ""
        return Statement("warn", f"{where} cannot say which difference it could have detected{reason}.")
    size, best = points(panel.mde, signed=False), points(panel.mde_independent, signed=False)
    text = f"{where} could have detected a difference of {size} points in ASR with 80 % power"
    if panel.mde_independent is not None and size != best:
        text = (
            f"{text} if answers about one item stand and fall together, and of {best} points if they were independent"
        )
    return Statement("info", f"{text}. Smaller changes are neither shown nor ruled out.")
