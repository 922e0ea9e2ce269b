"""A gate's result as text, JSON and JUnit XML. Nothing is decided here: each shows the status that the result has."""

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict
from textwrap import fill

from bitsafe.gate.result import ORDER, Check, Result, Status
from bitsafe.report.text import count, interval, one_line, percent, points

WIDTH = 100


def as_text(result: Result) -> str:
    """The verdict first, then what did not pass, worst first; of what passed only how much there is."""
    counts = ", ".join(f"{number} {status}" for status, number in result.counts.items())
    lines = [f"GATE: {result.status.upper()} (exit code {result.exit:d})", f"run {one_line(result.run)}, {counts}"]
    lines += [fill(f"policy {one_line(result.policy, 300)}: {one_line(result.summary, 500)}".rstrip(": "), WIDTH)]
    for status in ORDER:
        found = [check for check in result.checks if check.status == status]
        if found and status != Status.PASS:
            lines += ["", f"{status}, {count(len(found), 'check')}:", *(line_of(check) for check in found)]
    lines += ["", *(f"note: {one_line(note, 500)}" for note in result.notes)] if result.notes else []
    lines += ["", *(f"sha256 {digest}  {one_line(name)}" for name, digest in read_files(result).items())]
    return "\n".join(lines) + "\n"


def read_files(result: Result) -> dict[str, str]:
    return {result.policy: result.policy_sha256, **result.files}


def line_of(check: Check) -> str:
    cell = one_line(check.cell) or "(no cell)"
    return f"  {cell}: {one_line(check.name)}: {numbers(check)}{one_line(check.reason, 500)}"


def numbers(check: Check) -> str:
    """`0.3 % [0.1, 1.0], n 900, limit 5.0 %: `; empty where there are none."""
    if check.value is None or check.limit is None:
        return ""
    change = check.key in ("max_rise", "max_fall")
    value = f"{points(check.value)} points" if change else percent(check.value)
    limit = f"{points(check.limit, signed=False)} points" if change else percent(check.limit)
    return f"{value} {interval(check.low, check.high)}, n {check.n}, limit {limit}: "


def as_dict(result: Result) -> dict:
    """The JSON of the contract: status and exit code first."""
    told = {"status": result.status.value, "exit_code": int(result.exit), "counts": result.counts}
    return told | asdict(result) | {"checks": [asdict(check) for check in result.checks]}


def as_json(result: Result) -> str:
    """Escaped to ASCII, so that no text of the run moves a cursor or a direction."""
    return json.dumps(as_dict(result), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def as_junit(result: Result) -> str:
    """JUnit XML: a test case a check, and one for the gate as a whole. Only a pass is green; nothing is `skipped`."""
    suite = ET.Element("testsuite", name=f"bitsafe gate {one_line(result.run)}")
    head = Check("gate", "", "", "", "", "", result.status, f"exit code {result.exit:d}")
    failures = [add_case(suite, check) for check in (head, *result.checks)]
    totals = {"tests": len(failures), "failures": failures.count("failure"), "errors": failures.count("error")}
    suite.attrib |= {name: str(number) for name, number in totals.items()} | {"skipped": "0"}
    root = ET.Element("testsuites", suite.attrib)
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def add_case(suite: ET.Element, check: Check) -> str:
    """The element's tag under the test case: `failure`, `error`, or "" for a pass."""
    name = one_line(check.name, 300).strip() or "verdict"
    case = ET.SubElement(suite, "testcase", classname=one_line(check.cell, 300) or "run", name=name, time="0")
    told = f"{numbers(check)}{one_line(check.reason, 500)}"
    if check.status == Status.PASS:
        ET.SubElement(case, "system-out").text = told
        return ""
    tag = "failure" if check.status == Status.REGRESSION else "error"
    ET.SubElement(case, tag, type=check.status.value, message=told).text = told
    return tag


FORMATS = {"text": as_text, "json": as_json, "junit": as_junit}
FILES = {"gate.txt": as_text, "gate.json": as_json, "gate.xml": as_junit}
