"""What keeps a large run within memory and time: one model, one group of answers, one draw of clusters at a time."""

import weakref

import numpy as np
import pytest
from report_run import ANSWER, REFUSAL, toy_run
from tests.bench.scale import least, on_line, row, table, together

from bitsafe.cells import Cell
from bitsafe.matrix.run import Run
from bitsafe.report.page import explorer as page
from bitsafe.stats import assemble as assembly
from bitsafe.stats.intervals import resamples
from bitsafe.stats.paired import paired_bootstrap
from bitsafe.stats.quality import Labels, corrected_rate

MODELS = ["first", "second", "third"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Three models of two cells each."""
    matrix = [{"methods": ["rtn"], "bits": [4], "risks": ["none"]}]
    tables = {"models": {name: {"base": "toy"} for name in MODELS}}
    return toy_run(tmp_path_factory.mktemp("results"), 20, models=MODELS, tables=tables, matrix=matrix)


class Alive:
    """Calls `function`, and counts how many of the things it has returned are still held by anyone."""

    def __init__(self, function) -> None:
        self.function, self.made, self.most = function, [], 0

    def __call__(self, *arguments):
        found = self.function(*arguments)
        self.made.append(weakref.ref(found))
        self.most = max(self.most, sum(one() is not None for one in self.made))
        return found


def test_scoring_holds_the_verdicts_of_one_model_benchmark_and_decoding(run, monkeypatch):
    watched = Alive(assembly.read_verdicts)
    monkeypatch.setattr(assembly, "read_verdicts", watched)
    assembly.assemble(run)
    held = len(run.judges) * 3  # two cells, and full precision's second answers
    assert watched.most == held and len(watched.made) == held * len(MODELS) * len(run.benchmarks)


def test_the_page_reads_one_group_of_answers_at_a_time(run, monkeypatch):
    glanced, filled = Alive(page.glanced), Alive(page.filled)
    monkeypatch.setattr(page, "glanced", glanced)
    monkeypatch.setattr(page, "filled", filled)
    found = page.explorer(run)
    assert found.kept == found.answers == 3 * 2 * 3 * 3 * 20
    groups = len(MODELS) * len(run.benchmarks) * 3  # replicates
    assert len(glanced.made) == len(filled.made) == groups
    assert glanced.most <= 2 and filled.most <= 2  # the next is read before the last is let go


def test_texts_that_the_page_does_not_hold_are_not_made_ready(run, monkeypatch):
    cleaned = []
    monkeypatch.setattr("bitsafe.report.page.answers.clean", lambda text, limit: cleaned.append(text) or str(text))
    small = run.config.report.model_copy(update={"transcripts": 10})
    found = page.explorer(Run(run.config.model_copy(update={"report": small})))
    assert found.kept == 10 and sum(text in (REFUSAL, ANSWER) for text in cleaned) == 10 < len(cleaned)  # + prompts


def test_clusters_are_drawn_once_for_cells_alike():
    resamples.cache_clear()
    draw = np.random.default_rng(1)
    labels = Labels(draw.integers(1, 9, (40, 4)), "a test")
    for _ in range(5):
        corrected_rate(draw.integers(0, 2, 300).astype(float), np.repeat(np.arange(100), 3), labels)
    assert resamples.cache_info().misses == 1
    for _ in range(5):
        paired_bootstrap(draw.random(300) - 0.5, np.repeat(np.arange(100), 3))
    assert resamples.cache_info().misses == 2


def test_draws_are_those_of_one_generator_in_turn():
    generator = np.random.default_rng(7)
    expected = [generator.multinomial(n, np.full(n, 1 / n), size=6) for n in (5, 3)]
    for found, drawn in zip(resamples((5, 3), 6, 7), expected):
        assert (found == drawn).all() and found.dtype == float
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 1


def test_a_benchmark_row_is_against_the_line_through_the_smaller_sizes():
    assert on_line(100, (10, 3.0), (20, 4.0)) == 12
    took = [{"cpu": cpu, "wall": 2 * cpu, "memory_mb": cpu} for cpu in (3.0, 4.0, 15.0, 9.0)]
    found = [
        {"prompts": n, "models": 1 + (n == 40), "verdicts": n, "megabytes": {"scores.csv": 1.0, "report.html": 2.0}}
        | {"steps": {"score": each}}
        for n, each in zip((10, 20, 100, 40), took)
    ]
    made = row("score", found[:3], found[3])
    assert (made["ours"], made["peer"], made["ratio"]) == (15, 12, 1.25)
    assert made["per_verdict_ratio"] == pytest.approx(0.15 / 0.3) and made["memory_mb"] == 15
    assert [one["cpu"] for one in made["sizes"]] == [3, 4, 15, 9]
    assert together(took[:2]) == {"cpu": 7, "wall": 14, "memory_mb": 4}
    assert least([took[1], took[0] | {"wall": 99.0}]) == {"cpu": 3, "wall": 8, "memory_mb": 3}
    assert "| score | 3.0 / 3 | 4.0 / 4 | 15.0 / 15 | 9.0 / 9 |" in table(found).splitlines()


def test_a_run_of_the_benchmark_is_judged_by_the_judges_it_names(tmp_path):
    from tests.bench.scale import JUDGES
    from tests.bench.scale_run import scale_run, verdicts_of

    made = scale_run(tmp_path, 2)
    assert made.judges == list(JUDGES) and len(made.cells) == 30
    assert verdicts_of(made) == 2 * 31 * 3 * 3 * len(JUDGES)  # prompts, cells and one again, replicates, benchmarks
    assert made.replicates("toy0") == 3 and made.has(Cell("toy0", "full", 16))
