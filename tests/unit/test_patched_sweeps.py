"""Which patches differ in one setting alone, what a figure of them plots, and the published points beside it."""

import csv
from types import SimpleNamespace

import pytest
from sweep_run import RATES, STE, sweep_run

from bitsafe.cells import Cell
from bitsafe.config import read_config
from bitsafe.matrix.run import Run
from bitsafe.matrix.tables import ROOT
from bitsafe.report.patched.drawing import WIDTH, draw, write_ablations
from bitsafe.report.patched.sweeps import COLUMNS, published_rows, sweep_rows, sweeps, swept, words
from bitsafe.report.read import Results

QRESAFE = "bitsafe.patches.qresafe"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield sweep_run(tmp_path_factory.mktemp("results"), monkeypatch)


def of(**patches: dict) -> list[tuple]:
    """Sweeps of made-up patches of one cell: name, setting, values."""
    cells = [Cell("m", "rtn", 4, "none", stage) for stage in patches]
    made = SimpleNamespace(
        cells=[Cell("m", "rtn", 4), *cells],
        patch=lambda cell: SimpleNamespace(module=patches[cell.stage].get("module", "a.patch")),
        params=lambda cell: {key: value for key, value in patches[cell.stage].items() if key != "module"},
    )
    return [(sweep.name, sweep.setting, [value for value, _ in sweep.points]) for sweep in sweeps(made)]


def test_only_patches_that_differ_in_one_setting_make_a_sweep():
    assert of(a={"tau": 0.2, "beta": 0.1}, b={"tau": 0.4, "beta": 0.5}) == []
    assert of(a={"tau": 0.2, "module": "a.one"}, b={"tau": 0.4, "module": "a.two"}) == []
    found = of(a={"tau": 0.4, "beta": 0.1}, b={"tau": 0.1, "beta": 0.1}, c={"tau": 0.4, "beta": 0.01})
    assert found == [("patch", "tau", [0.1, 0.4]), ("patch", "beta", [0.01, 0.1])]


def test_a_setting_left_out_has_its_default():
    """mask_mode is `product` and refresh_every 10 where a row does not say; 10 and 10.0 are one number."""
    assert of(q={"tau": 0.2}, q_any={"tau": 0.2, "mask_mode": "any"}) == [("q", "mask_mode", ["product", "any"])]
    found = of(q={"refresh_every": 10}, q_any={"mask_mode": "any"}, q_k5={"refresh_every": 5})
    assert ("q", "refresh_every", [5, 10]) in found


def test_equal_patches_count_once_and_names_are_cut_at_a_word():
    found = of(mixed={"tau": 0.05}, mixed_tau005={"tau": 0.05}, mixed_tau02={"tau": 0.2})
    assert found == [("mixed", "tau", [0.05, 0.2])]
    assert of(mixed_tau005={"tau": 0.05}, mixed_tau02={"tau": 0.2})[0][0] == "mixed"


def test_no_number_stands_last_and_reads_all():
    found = of(q={"prompts": None}, q8={"prompts": 8}, q64={"prompts": 64})
    assert found == [("q", "prompts", [8, 64, None])]
    assert [words(value) for value in (8, 0.05, 1.0, None, "any")] == ["8", "0.05", "1", "all", "any"]


def test_every_variant_of_the_shipped_ablations_belongs_to_a_sweep():
    made = Run(read_config([ROOT / "config.yaml", ROOT / "experiments" / "ablations.yaml"]))
    names = ["tau", "refresh_every", "mask_scope", "mask_mode", "quant_mode", "beta", "prompts"]
    assert sorted(swept(made)) == sorted(names)
    drawn = {cell for sweep in sweeps(made) for _, cell in sweep.points}
    assert drawn == {cell for cell in made.cells if cell.is_patched}
    assert swept(Run(read_config([ROOT / "config.yaml"]))) == []


def test_rows_are_those_of_the_scores(run):
    panel = Results.read(run.folder).leading[0]
    tau = [sweep for sweep in sweeps(run) if sweep.setting == "tau"]
    rows = sweep_rows(tau, panel)
    assert [(row["series"], row["value"], row["stage"]) for row in rows] == [
        ("qresafe", "0", "qresafe_tau0"),
        ("qresafe", "0.2", "qresafe"),
        ("qresafe", "0.6", "qresafe_tau06"),
        ("random_mask", "0.2", "random_mask"),
        ("random_mask", "0.6", "random_mask_tau06"),
    ]
    row, entry = rows[1], panel.at(Cell("toy", "ste", 4, "harmful", "qresafe"))
    assert row["asr"] == entry.score["asr"] == pytest.approx(sum(map(float, row["asr_replicates"].split())) / 3)
    assert row["asr_before"] == pytest.approx(panel.at(STE).score["asr"])
    assert row["utility_value"] == pytest.approx(row["utility_baseline_value"] + row["utility_delta"])
    assert set(row) <= set(COLUMNS)


def test_published_points_stand_beside_qresafe_alone(run):
    tau = [sweep for sweep in sweeps(run) if sweep.setting == "tau"]
    rows = published_rows("tau", tau)
    assert [(row["value"], round(row["asr"], 4)) for row in rows] == [
        ("0", 0.422), ("0.2", 0.139), ("0.4", 0.055), ("0.6", 0.018), ("0.8", 0.016), ("1", 0.016),
    ]  # fmt: skip
    assert published_rows("tau", [sweep for sweep in tau if sweep.module != QRESAFE]) == []
    assert published_rows("beta", tau) == []


def test_files_of_a_run(run):
    write_ablations(run)
    folder = run.folder / "figures"
    assert sorted(path.stem for path in folder.glob("ablation_*.pdf")) == ["ablation_mask_mode", "ablation_tau"]
    with (folder / "ablation_tau.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5 + 6 and float(rows[-1]["asr"]) == 0.016
    before = {path: path.read_bytes() for path in folder.iterdir()}
    write_ablations(run)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}, "the same bytes every time"


def marks_of(figure, title: str) -> dict[str, list[tuple[float, float]]]:
    """Where the single markers of an axes stand, by colour."""
    (axes,) = [axes for part in figure.subfigs for axes in part.axes if axes.get_title(loc="left") == title]
    found: dict[str, list[tuple[float, float]]] = {}
    for line in axes.get_lines():
        if len(line.get_xdata()) == 1 and line.get_marker() not in ("_", "None"):
            found.setdefault(line.get_color(), []).append((float(line.get_xdata()[0]), float(line.get_ydata()[0])))
    return found


def test_what_is_drawn(run):
    panel = Results.read(run.folder).leading[0]
    tau = [sweep for sweep in sweeps(run) if sweep.setting == "tau"]
    rows = sweep_rows(tau, panel)
    figure = draw([rows], published_rows("tau", tau), frozenset(["random_mask"]))
    assert figure.get_figwidth() == WIDTH
    series = list(marks_of(figure, "ASR (%)").values())
    assert [y for _, y in series[0]] == pytest.approx([100 * row["asr"] for row in rows[:3]])
    assert [x for x, _ in series[0]] == pytest.approx([0, 0.2, 0.6], abs=0.03)
    lost = list(marks_of(figure, "utility lost (points)").values())
    assert [y for _, y in lost[1]] == pytest.approx([-100 * row["utility_delta"] for row in rows[3:]])
    titles = [axes.get_title(loc="left") for part in figure.subfigs for axes in part.axes]
    assert "published, ASR (%)" in titles
    alone = draw([rows], (), frozenset())
    assert "published, ASR (%)" not in [axes.get_title(loc="left") for part in alone.subfigs for axes in part.axes]


def test_a_cell_that_is_not_measured_leaves_a_gap(run):
    panel = Results.read(run.folder).leading[0]
    sweep = next(sweep for sweep in sweeps(run) if sweep.setting == "tau")
    rows = sweep_rows([sweep], panel)
    rows[1] = {key: rows[1][key] for key in ("setting", "value", "series", "stage", "risk")} | {"reason": "not run"}
    (points,) = marks_of(draw([rows]), "ASR (%)").values()
    assert len(points) == 2 and len(RATES["qresafe"]) == 3
