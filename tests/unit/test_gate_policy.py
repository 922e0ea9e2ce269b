"""The policy file: what it may say, and what a mistake in it is told."""

import copy

import pytest
import yaml

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.gate.policy import Limit, Policy, read_policy
from bitsafe.matrix.tables import ROOT

SHIPPED = ROOT / "experiments/policy.yaml"
BASE = {"judges": ["reference"], "asr": {"max_rate": 0.1}, "over_refusal": {"max_rise": 0.2}}


def told(tmp_path, **changes) -> str:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(copy.deepcopy(BASE) | changes))
    with pytest.raises(UserError) as caught:
        read_policy(file)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(file))
    return str(caught.value)


def test_the_shipped_policy_reads():
    policy = read_policy(SHIPPED)
    assert list(policy.axes()) == ["asr", "over_refusal", "utility"] and policy.judges == ["reference"]


def test_limits_are_turned_so_that_more_is_worse():
    policy = Policy(**BASE, utility={"min_value": 0.8, "max_fall": 0.05})
    assert list(policy.utility.at(4).limits()) == [
        Limit("min_value", "rate", -0.8, -1),
        Limit("max_fall", "change", 0.05, -1),
    ]
    assert list(policy.asr.at(4).limits()) == [Limit("max_rate", "rate", 0.1, 1)]


def test_a_bit_width_is_laid_over_the_axis():
    axis = Policy(**BASE | {"asr": {"max_rate": 0.1, "min_n": 50, "by_bits": {2: {"max_rise": 0.3}}}}).asr
    assert [(limit.key, limit.most) for limit in axis.at(2).limits()] == [("max_rate", 0.1), ("max_rise", 0.3)]
    assert axis.at(2).min_n == 50 and [limit.key for limit in axis.at(4).limits()] == ["max_rate"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"judge": ["x"]}, "judge: unknown key; did you mean 'judges'?"),
        ({"asr": {"max_rte": 0.1}}, "asr.max_rte: unknown key; did you mean 'max_rate'?"),
        ({"asr": {"max_rate": 0.1, "by_bits": {4: {"max_rat": 0.1}}}}, "did you mean 'max_rate'?"),
        ({"asr": {"max_rate": 5}}, "asr.max_rate: input should be less than or equal to 1, not 5"),
        ({"asr": {"max_rate": True}}, "asr.max_rate: input should be a valid number, not True"),
        ({"asr": {"max_rate": float("nan")}}, "asr.max_rate: input should be a finite number"),
        ({"asr": {"max_rate": 0.1, "min_n": 0}}, "asr.min_n: input should be greater than or equal to 1"),
        ({"asr": {}}, "asr: value error, no limit: give max_rate or max_rise"),
        ({"asr": {"max_rate": 0.1, "by_bits": {2: {"max_rate": None}}}}, "no limit at 2 bits"),
        ({"judges": []}, "judges: list should have at least 1 item"),
        ({"cells": {"risks": ["evil"]}}, "cells.risks[0]"),
    ],
)
def test_a_mistake_names_file_key_and_remedy(tmp_path, changes, said):
    assert said in told(tmp_path, **changes)


def test_over_refusal_cannot_be_left_out(tmp_path):
    """A patch that refuses everything would pass."""
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump({key: BASE[key] for key in ("judges", "asr")}))
    with pytest.raises(UserError, match="over_refusal: this key is missing"):
        read_policy(file)


def test_a_selection_holds_what_it_names():
    selection = Policy(**BASE, cells={"stages": ["qresafe"], "bits": [4]}).cells
    assert selection.holds(Cell("m", "ste", 4, "harmful", "qresafe"))
    assert not selection.holds(Cell("m", "ste", 4, "harmful")) and not selection.holds(
        Cell("m", "ste", 3, "harmful", "qresafe")
    )
