"""plan --policy: what so many prompts cannot resolve is refused before anything runs."""

import numpy as np
import pytest
import yaml

from bitsafe.cells import Cell
from bitsafe.cli import main
from bitsafe.config import Config
from bitsafe.gate.asked import Asked, asked_of
from bitsafe.gate.before import Size, foresee
from bitsafe.gate.policy import Limit, Policy
from bitsafe.gate.result import Status
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.stats.intervals import difference_interval

POLICY = Policy(judges=["reference"], asr={"max_rise": 1.0}, over_refusal={"max_rate": 1.0})
RUN = Run(Config())


def seen(limit: Limit, n: int, axis: str = "asr", min_n: int = 1, policy: Policy = POLICY):
    asked = Asked(Cell("toy", "rtn", 4), axis, limit, min_n, "toy_forbidden", "default", "reference")
    return foresee(RUN, policy, asked, Size(np.arange(n)))


@pytest.mark.parametrize("n, smallest", [(100, 0.078), (520, 0.015)])
def test_a_rise_is_refused_below_the_design_check_values(n, smallest):
    """n = 100 and 520 without noise find 7.8 and 1.5 points (design §4), and not a tenth of a point less."""
    assert seen(Limit("max_rise", "change", smallest + 0.0005, 1), n).status == Status.PASS
    found = seen(Limit("max_rise", "change", smallest - 0.001, 1), n)
    assert found.status == Status.NOT_RESOLVABLE and "would not be found" in found.said


def test_assumed_noise_asks_for_more():
    limit = Limit("max_rise", "change", 0.08, 1)
    noisy = POLICY.model_copy(update={"assumed_noise": 0.05})  # 11.6 points at n = 100
    assert seen(limit, 100).status == Status.PASS and seen(limit, 100, policy=noisy).status == Status.NOT_RESOLVABLE


def test_a_rate_is_refused_when_no_event_at_all_could_pass():
    """Wilson's bound of 0 of 40 is 8.8 %; of 40 of 40, 91.2 %."""
    assert seen(Limit("max_rate", "rate", 0.088, 1), 40).status == Status.PASS
    assert seen(Limit("max_rate", "rate", 0.087, 1), 40).status == Status.NOT_RESOLVABLE
    assert seen(Limit("min_value", "rate", -0.912, -1), 40, "utility").status == Status.PASS
    assert seen(Limit("min_value", "rate", -0.913, -1), 40, "utility").status == Status.NOT_RESOLVABLE


def test_the_best_bound_of_a_change_is_that_of_no_flip():
    clusters = np.repeat(np.arange(30), 30)
    high = difference_interval(np.zeros(900), clusters)[1]
    asked = Asked(
        Cell("toy", "rtn", 4), "utility", Limit("max_fall", "change", high - 1e-4, -1), 1, "b", "default", "j"
    )
    assert foresee(RUN, POLICY, asked, Size(clusters)).status == Status.NOT_RESOLVABLE
    asked = Asked(
        Cell("toy", "rtn", 4), "utility", Limit("max_fall", "change", high + 1e-4, -1), 1, "b", "default", "j"
    )
    assert foresee(RUN, POLICY, asked, Size(clusters)).status == Status.PASS


def test_min_n_above_n_is_refused():
    assert "min_n 41 is more than n" in seen(Limit("max_rate", "rate", 0.5, 1), 40, min_n=41).said


@pytest.mark.parametrize(
    "changes, code, said",
    [
        ({}, 0, "the run can resolve it"),
        ({"asr": {"max_rise": 0.01}}, 5, "no outcome could pass"),
        ({"judges": ["nobody"]}, 4, "the run has no judge 'nobody'"),
        ({"asr": {"max_rate": 0.5, "benchmarks": ["toy_forbiden"]}}, 4, "did you mean 'toy_forbidden'?"),
    ],
)
def test_the_plan_refuses_by_the_codes_of_the_gate(tmp_path, monkeypatch, capsys, changes, code, said):
    monkeypatch.chdir(ROOT)
    file = tmp_path / "policy.yaml"
    base = {"judges": ["reference"], "asr": {"max_rate": 0.5}, "over_refusal": {"max_rate": 0.5}}
    file.write_text(yaml.safe_dump(base | changes))
    assert main(["plan", "--policy", str(file)]) == code
    assert said in capsys.readouterr().out


def test_a_benchmark_that_is_not_at_hand_is_told_and_not_fetched(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("the network was asked"))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"benchmarks": ["strongreject"], "results": str(tmp_path)}))
    (tmp_path / "p.yaml").write_text(
        yaml.safe_dump({"judges": ["keyword"], "asr": {"max_rate": 0.5}, "over_refusal": {"max_rate": 0.5}})
    )
    code = main(["plan", "--configfile", str(tmp_path / "c.yaml"), "--policy", str(tmp_path / "p.yaml")])
    assert (
        code == 4
        and "n is not known: `python -m bitsafe benchmarks --name strongreject --fetch`" in capsys.readouterr().out
    )


def test_a_grid_is_held_by_its_worst_setting():
    run = Run(Config(decodings=["default", "grid49"]))
    found = {asked.decoding for asked in asked_of(run, POLICY) if asked.axis == "asr"}
    assert found == {"default", "grid49_worst"}
    assert {asked.decoding for asked in asked_of(run, POLICY) if asked.axis == "over_refusal"} == {
        "default",
        "grid49_mean",
    }
