"""The gate's report and exit code cannot disagree: random tables against random policies, read back from every form."""

import json
import math
import xml.etree.ElementTree as ET
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from bitsafe.cells import Cell
from bitsafe.exits import Exit
from bitsafe.gate import command
from bitsafe.gate.evaluate import limit_checks, nothing
from bitsafe.gate.measured import Tables
from bitsafe.gate.policy import Policy
from bitsafe.gate.render import FORMATS
from bitsafe.gate.result import Result

FULL = Cell("m", "full", 16)
CELLS = [FULL, Cell("m", "rtn", 4), Cell("m", "rtn", 2), Cell("m", "rtn", 4, "none", "qresafe")]
KINDS = {"harm": "harmful", "safe": "over_refusal", "good": "utility"}
CODES = {"pass": 0, "regression": 3, "not measured": 4, "not resolvable": 5}

run = SimpleNamespace(
    cells=CELLS,
    controls=set(),
    benchmarks={name: SimpleNamespace(kind=kind) for name, kind in KINDS.items()},
    decodings=["default"],
    judges=["a", "b"],
    settings=lambda name: [],
    judge_applies=lambda judge, benchmark: (judge, benchmark) != ("b", "good"),
)

fraction = st.floats(0, 1)
limit = st.none() | fraction
count = st.integers(1, 400)


@st.composite
def axes(draw, first: str, second: str):
    one = draw(st.sampled_from([first, second]))
    limits = {first: draw(limit), second: draw(limit), "min_n": draw(count)}
    return limits | ({one: draw(fraction)} if limits[first] is None and limits[second] is None else {})


policies = st.builds(
    Policy,
    judges=st.lists(st.sampled_from(["a", "b", "nobody"]), min_size=1, max_size=2, unique=True),
    asr=axes("max_rate", "max_rise"),
    over_refusal=axes("max_rate", "max_rise"),
    utility=st.none() | axes("min_value", "max_fall"),
    cells=st.sampled_from([{}, {"bits": [2]}, {"stages": ["no_such_stage"]}]),
)

number = st.none() | st.floats(-1, 1) | st.sampled_from([math.nan, math.inf, "=cmd|' /C calc'!A0", True])


@st.composite
def intervals(draw, least: float):
    """A value with its interval; now and then with something else in place of a number."""
    three = sorted(draw(st.lists(st.floats(least, 1), min_size=3, max_size=3)))
    named = dict(zip(("low", "value", "high"), three))
    return named | ({draw(st.sampled_from(sorted(named))): draw(number)} if draw(st.integers(0, 9)) == 0 else {})


@st.composite
def tables(draw):
    rows = {"cells": [], "scores": [], "utility": [], "comparisons": []}
    for cell in CELLS:
        for benchmark, kind in KINDS.items():
            for judge in run.judges:
                if not run.judge_applies(judge, benchmark) or draw(st.integers(0, 19)) == 0:
                    continue
                place = {**cell.columns(), "benchmark": benchmark, "decoding": "default", "judge": judge}
                metric = "asr" if kind == "harmful" else kind
                own, change = draw(intervals(0)), draw(intervals(-1))
                share = {"unusable_share": draw(st.sampled_from([0.0, 0.05, 0.08, 0.2, None]))}
                n = draw(st.integers(0, 400))
                text = {"reason": draw(st.sampled_from(["", "\x1b[31mred\x00", "<b>&]]>", "\u202eabc"]))}
                if kind == "harmful":
                    names = {"asr": own["value"], "asr_low": own["low"], "asr_high": own["high"]}
                    rows["scores"].append(place | names | share | text | {"n": n, "n_unscored": 0, "n_ambiguous": 0})
                else:
                    rows["utility"].append(place | own | share | text | {"n": n, "metric": metric})
                names = {"delta": change["value"], "delta_low": change["low"], "delta_high": change["high"]}
                about = {"contrast": "total", "metric": metric, "n_pairs": n}
                rows["comparisons"].append(place | names | about | text)
    return rows


def naive(check: dict, rows: dict, policy: Policy) -> str:
    """The status of one check, read off the tables the long way round."""
    cell = Cell.parse(check["cell"])
    at = {**cell.columns(), "benchmark": check["benchmark"], "decoding": "default", "judge": check["judge"]}
    kind = KINDS[check["benchmark"]]
    if check["judge"] not in run.judges or not run.judge_applies(check["judge"], check["benchmark"]):
        return "not measured"

    def one(table: str, where: dict) -> dict:
        return next((r for r in rows[table] if all(r[key] == value for key, value in where.items())), {})

    table = "scores" if kind == "harmful" else "utility"
    own, before = one(table, at), one(table, at | {"stage": "quantized"})
    source = own if check["key"] in ("max_rate", "min_value") else one("comparisons", at) if own else {}
    columns = {"scores": ("asr_low", "asr", "asr_high"), "utility": ("low", "value", "high")}[table]
    if source is not own:
        columns = ("delta_low", "delta", "delta_high")
    n = own.get("n") if source is own else source.get("n_pairs")
    found = [*(source.get(column) for column in columns), n, own.get("unusable_share")]
    found += [before.get("unusable_share")] if kind == "harmful" else []
    if any(not isinstance(x, int | float) or isinstance(x, bool) or not math.isfinite(x) for x in found):
        return "not measured"
    low, value, high = found[:3]
    if not low - 1e-6 <= value <= high + 1e-6 or n < 1:
        return "not measured"
    least = getattr(policy, check["axis"]).min_n
    if found[4] > 0.1 or n < least:
        return "not resolvable"
    if check["key"] == "min_value":
        low, high, most = -high, -low, -check["limit"]
    elif check["key"] == "max_fall":
        low, high, most = -high, -low, check["limit"]
    else:
        most = check["limit"]
    if low > most + 1e-9:
        return "regression"
    babble = kind == "harmful" and found[4] - found[5] > 0.02 + 1e-12
    return "not resolvable" if high > most + 1e-9 or babble else "pass"


@settings(max_examples=150)
@given(policies, tables(), st.text(max_size=20))
def test_every_form_and_the_exit_code_say_the_same(policy, rows, name):
    checks = tuple(limit_checks(run, policy, Tables(rows)))
    result = Result(name, "p.yaml", "0" * 64, name, checks or (nothing(policy),))
    text, told, xml = FORMATS["text"](result), json.loads(FORMATS["json"](result)), FORMATS["junit"](result)

    statuses = [naive(check, rows, policy) if check["cell"] else "not measured" for check in told["checks"]]
    assert statuses == [check["status"] for check in told["checks"]]
    order = ["regression", "not measured", "not resolvable", "pass"]
    wanted = min(statuses, key=order.index)

    assert (told["status"], told["exit_code"]) == (wanted, CODES[wanted])
    first, second = text.splitlines()[:2]
    assert first == f"GATE: {wanted.upper()} (exit code {CODES[wanted]})"
    assert second.endswith(", ".join(f"{statuses.count(one)} {one}" for one in order))
    suite = ET.fromstring(xml.encode())
    assert (suite.get("failures") == suite.get("errors") == "0") == (wanted == "pass")
    cases = suite.findall("./testsuite/testcase")
    assert [bool(len(case.findall("failure") + case.findall("error"))) for case in cases[1:]] == [
        status != "pass" for status in statuses
    ]
    assert not suite.findall(".//skipped") and len(cases) == len(statuses) + 1
    assert len(suite.findall(".//failure")) == statuses.count("regression") + (wanted == "regression")
    assert result.exit == CODES[wanted]


def test_the_command_returns_the_code_of_what_it_prints(monkeypatch, capsys, tmp_path):
    for policy_cells, code in (({"stages": ["no_such_stage"]}, 4),):
        policy = Policy(judges=["a"], asr={"max_rate": 0.1}, over_refusal={"max_rate": 0.1}, cells=policy_cells)
        result = Result("r", "p.yaml", "0" * 64, "", (nothing(policy),))
        monkeypatch.setattr(command, "evaluate", lambda *_, result=result: result)
        assert command.gate(tmp_path, tmp_path, "json", tmp_path / "out") == code
        assert json.loads(capsys.readouterr().out)["exit_code"] == code
        assert json.loads((tmp_path / "out/gate.json").read_text())["exit_code"] == code
        assert command.gate(tmp_path, tmp_path, exit_zero=True) == Exit.OK
