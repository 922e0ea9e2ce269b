"""The experiments fill the papers' tables: each printed cell finds a number in a run, were all of it measured.

No step runs: the CSV files of each experiment are written with one made-up row for every cell × benchmark × decoding ×
judge that its configuration asks for.
"""

import pytest

from bitsafe.config import read_config
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.report.published.build import build
from bitsafe.report.published.ours import Ours
from bitsafe.report.published.papers import papers
from bitsafe.stats.csvfile import write_table

CATEGORIES = (
    "Harassment/Discrimination, Malware/Hacking, Physical harm, Economic harm, Fraud/Deception, Sexual/Adult content, "
    "Privacy, Expert advice"
)
SAFETYBENCH = (
    "Ethics and Morality",
    "Illegal Activities",
    "Mental Health",
    "Offensiveness",
    "Physical Health",
    "Privacy and Property",
    "Unfairness and Bias",
)
RATE = {"n": 100, "n_clusters": 100, "n_safe": 50, "n_harmful": 50, "asr": 0.5, "score_mean": 0.5, "safe_share": 0.5}
COST = {"state": "done", "bytes": 10**9, "seconds": 1.0, "patch_seconds": 1.0, "peak_gpu_mb": 1}
FILLED_BY = {  # every table and figure that is drawn of data; by the run or the runs that fill all of it
    "qresafe": "table02 table05 table06 table07 table09 table10 table13 figure1 figure3",
    "qresafe_decoding": "",
    "qresafe_training": "table11 table12",
    "opensafetymini": "table03 table04 table05 figure1",
}
NEVER = (  # what bitsafe has no number for, or what stands in no file
    "no judge human",
    "no model gemma-2-27b-it",  # the judge judged
    "bitsafe computes no AlignScore",
    "the reference is zero",  # a change relative to ours, all alike here
    "JailbreakBench has no such category",
)


@pytest.fixture(scope="module", params=FILLED_BY)
def measured(request, tmp_path_factory):
    """Name of the experiment, its paper, and its numbers."""
    own = read_config([ROOT / "config.yaml", ROOT / f"experiments/{request.param}.yaml"])
    run = Run(own.model_copy(update={"results": str(tmp_path_factory.mktemp("results"))}))
    run.folder.mkdir()
    for name, rows in pretended(run).items():
        write_table(run.folder, name, rows)
    slug = request.param.partition("_")[0]
    return request.param, next(paper for paper in papers() if paper.slug == slug), Ours(run.folder, run.name)


def pretended(run: Run) -> dict[str, list[dict]]:
    tables = ("cells", "scores", "scores_by_category", "utility", "utility_by_category")
    found: dict[str, list[dict]] = {table: [] for table in tables}
    for cell in run.cells:
        nouns = {name: getattr(cell, name) for name in ("model", "method", "bits", "risk", "stage")}
        found["cells"].append(nouns | COST)
        for benchmark, row in run.benchmarks.items():
            for judge in (judge for judge in run.judges if run.judge_applies(judge, benchmark)):
                for decoding in [name for one in run.decodings for name in (one, *settings(run, one))]:
                    place = nouns | {"benchmark": benchmark, "decoding": decoding, "judge": judge}
                    metric = "over_refusal" if row.kind == "over_refusal" else "utility"
                    value = place | {"metric": metric, "n": 100, "value": 0.5}
                    found["utility"].append(value)
                    if benchmark == "safetybench_zero_shot":
                        found["utility_by_category"] += [value | {"category": category} for category in SAFETYBENCH]
                    if row.kind == "harmful":
                        found["scores"].append(place | RATE)
                        each = [{"category": category} for category in CATEGORIES.split(", ")]
                        found["scores_by_category"] += [place | RATE | one for one in each]
    return found


def settings(run: Run, decoding: str) -> list[str]:
    return [f"{decoding}_{name}" for name in run.settings(decoding)]


def blank(paper, table: str, ours: Ours) -> list[str]:
    """Why each printed cell that has no number of ours has none."""
    cells = [cell for line in build(paper, table, ours).lines for cell in line.cells.values()]
    return [cell.ours.reason for cell in cells if cell.printed and cell.ours.value is None]


def test_the_tables_of_an_experiment_are_filled(measured):
    name, paper, ours = measured
    for table in FILLED_BY[name].split():
        unknown = [reason for reason in blank(paper, table, ours) if not any(never in reason for never in NEVER)]
        assert unknown == [], table


def test_the_decoding_attack_fills_the_other_half_of_its_table(measured):
    """Table 4 of Q-resafe: its ASR by the settings of the grid, its utility by experiments/qresafe.yaml."""
    name, paper, ours = measured
    if name == "qresafe_decoding":
        assert {reason.partition(":")[2] for reason in blank(paper, "table04", ours)} == {
            " no benchmark mt_bench_gpt4_references or mt_bench",
            " no benchmark alpaca_eval",
        }


def test_what_opensafetymini_leaves_blank_has_a_reason(measured):
    name, paper, ours = measured
    if name == "opensafetymini":
        for table in paper.says.tables:
            assert all(any(never in reason for never in NEVER) for reason in blank(paper, table, ours)), table
