"""Groups, the names of a run's jobs, and the lock of a step: what needs no Slurm."""

import json
import multiprocessing
import os
from types import SimpleNamespace

import pytest
from snakemake.resources import Resources

from bitsafe.cluster import earlier
from bitsafe.cluster.earlier import asked_for, name_of, settle
from bitsafe.cluster.groups import grouped, is_light
from bitsafe.cluster.writers import only_writer
from bitsafe.config import Config
from bitsafe.errors import UserError
from bitsafe.matrix.run import Run

NOUNS = {"model": "toy", "method": "rtn", "bits": "4", "risk": "none"}


def a_run() -> Run:
    rows = {"far": {"base": "llm_safety", "model": "x"}, "gpu": {"base": "harmbench", "revision": "abc"}}
    return Run(Config(tables={"judges": rows}))


def a_workflow(local: bool = False, **asked: dict) -> SimpleNamespace:
    asked = {rule: Resources.from_mapping(of_rule) for rule, of_rule in asked.items()}
    return SimpleNamespace(local_exec=local, resource_settings=SimpleNamespace(overwrite_resources=asked))


def group_of(workflow: SimpleNamespace, rule: str, **nouns: str) -> str | None:
    return grouped(workflow, a_run(), rule)(SimpleNamespace(**NOUNS, **nouns))


def test_the_rules_of_a_cell_share_a_group_and_no_other_cell_does():
    workflow = a_workflow()
    cell = {group_of(workflow, rule, stage="quantized") for rule in ("generate", "distance")}
    cell |= {group_of(workflow, "quantize"), group_of(workflow, "judge", stage="quantized", judge="keyword")}
    assert cell == {"toy__rtn__4bit__none__quantized"}
    assert group_of(workflow, "patch", stage="qresafe") == "toy__rtn__4bit__none__qresafe"


def test_on_one_machine_there_are_no_groups():
    assert group_of(a_workflow(local=True), "quantize") is None


@pytest.mark.parametrize(("judge", "light"), [("keyword", True), ("reference", True), ("far", False), ("gpu", False)])
def test_judges_with_needs_of_their_own_go_out_by_themselves(judge, light):
    assert is_light(a_run(), judge) is light
    assert (group_of(a_workflow(), "judge", stage="quantized", judge=judge) is not None) is light


def test_a_rule_that_names_another_partition_is_a_group_of_its_own():
    gres = {"gres": "gpu:1", "gpu": 0}
    workflow = a_workflow(quantize=gres, generate=gres)
    assert group_of(workflow, "quantize") == group_of(workflow, "generate", stage="quantized")
    assert group_of(workflow, "judge", stage="quantized", judge="keyword") == "toy__rtn__4bit__none__quantized__judge"
    assert group_of(a_workflow(judge={"mem_mb": 9}), "judge", stage="quantized", judge="keyword")[-1] == "d"


def test_the_name_of_a_run_is_its_folders_own_and_fits_slurm(tmp_path):
    first, second = tmp_path / "a/qresafe.v2_on_a_long_and_winding_name", tmp_path / "b/qresafe.v2_on_a_long"
    assert name_of(first) != name_of(second) and name_of(first) == name_of(tmp_path / "b/.." / "a" / first.name)
    assert len(name_of(first)) <= 50 and set(name_of(first)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_misspelt_switch_is_told(monkeypatch):
    monkeypatch.setenv("BITSAFE_EARLIER_JOBS", "kill")
    with pytest.raises(UserError, match="cancel or wait"):
        asked_for()


class Queue:
    """Slurm with these jobs of a run; each look at the queue lets one that runs end, and scancel takes jobs away."""

    def __init__(self, folder, **states: str) -> None:
        self.name, self.states, self.cancelled = name_of(folder), states, []

    def __call__(self, command: str, *arguments: str) -> str:
        if command == "scancel":
            self.cancelled += arguments
            self.states = {job: state for job, state in self.states.items() if job[1:] not in arguments}
            return ""
        shown = "".join(f"{job[1:]}|{state}|{self.name}_1\n" for job, state in self.states.items())
        running = [job for job, state in self.states.items() if state == "RUNNING"]
        for job in running[:1]:
            del self.states[job]
        return shown + "99|RUNNING|bitsafe-another-run\n"


@pytest.mark.parametrize(("how", "cancelled"), [("cancel", ["1", "2", "3"]), ("wait", ["2"])])
def test_earlier_jobs_are_cancelled_or_waited_for(tmp_path, monkeypatch, capsys, how, cancelled):
    queue = Queue(tmp_path, j1="RUNNING", j2="PENDING", j3="RUNNING")
    monkeypatch.setattr(earlier, "slurm", queue)
    monkeypatch.setattr(earlier.time, "sleep", lambda seconds: None)
    settle(tmp_path, how, None)
    assert queue.cancelled == cancelled and "RUNNING" not in queue.states.values()
    assert ("waited for: 1, 3" in capsys.readouterr().err) is (how == "wait")


def test_jobs_that_do_not_end_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(earlier, "slurm", lambda *command: f"5|COMPLETING|{name_of(tmp_path)}_1\n")
    monkeypatch.setattr(earlier, "PATIENCE", 0)
    with pytest.raises(UserError, match="jobs 5 of an earlier start do not end"):
        settle(tmp_path, "cancel", None)


def hold(folder, begun, over):
    with only_writer(folder, "generate toy"):
        begun.set()
        over.wait(30)


def test_a_second_writer_stops_with_a_line_and_a_killed_one_leaves_no_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("BITSAFE_WRITE_LOG", str(tmp_path / "log"))
    context = multiprocessing.get_context("fork")
    begun, over = context.Event(), context.Event()
    first = context.Process(target=hold, args=(tmp_path, begun, over))
    first.start()
    assert begun.wait(30)
    with pytest.raises(UserError, match=f"process {first.pid} on"), only_writer(tmp_path, "generate toy"):
        pass
    with only_writer(tmp_path, "judge toy keyword"):
        pass
    first.kill()
    first.join()
    with only_writer(tmp_path, "generate toy"):
        pass
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    mine = [row for row in rows if row["what"] == "generate toy" and row["pid"] == os.getpid()]
    assert [row["event"] for row in mine] == ["begin", "end"]
    assert mine[0]["other"]["pid"] == first.pid and mine[0]["other_alive"] is False
