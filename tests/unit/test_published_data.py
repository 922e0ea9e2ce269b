"""The shipped numbers of the papers: rebuilt cell by cell, against a second transcription, and against themselves."""

import csv
import io
from statistics import fmean

import pytest

from bitsafe.errors import UserError
from bitsafe.matrix.tables import Tables
from bitsafe.report.published import papers as reading
from bitsafe.report.published.build import build
from bitsafe.report.published.formats import as_csv
from bitsafe.report.published.papers import FOLDER, papers

QRESAFE, OSM = (next(paper for paper in papers() if paper.slug == slug) for slug in ("qresafe", "opensafetymini"))
TABLES = [(paper, name) for paper in papers() for name in (*paper.says.tables, *paper.says.plotted)]


def rows(paper, table: str, *key: str) -> dict[tuple, dict[str, str]]:
    """Printed rows by their labels."""
    printed = paper.printed(table)
    return {tuple(row[name] for name in key or paper.table(table).rows): row for row in printed.rows}


def test_every_table_and_figure_of_the_papers_is_there():
    assert [int(name[5:]) for name in QRESAFE.says.tables] == [2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13]
    assert [int(name[5:]) for name in OSM.says.tables] == [2, 3, 4, 5, 7, 8, 9, 10]
    assert [int(name[6:]) for name in QRESAFE.says.figures] == [1, 3]
    assert [int(name[6:]) for name in OSM.says.figures] == [1, 3, 4, 5, 6]


@pytest.mark.parametrize(("paper", "table"), TABLES, ids=[f"{paper.slug}-{name}" for paper, name in TABLES])
def test_a_rebuilt_table_equals_its_source_cell_by_cell(paper, table):
    """The source is read here as text, by none of the code that is tested."""
    below = "tables" if table in paper.says.tables else "figures"
    lines = (FOLDER / paper.slug / below / f"{table}.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and "arxiv.org" in lines[0], "a table says where it is from"
    source = [line for line in csv.reader(line for line in lines if not line.startswith("#"))]
    rebuilt = list(csv.reader(io.StringIO(as_csv(build(paper, table)))))
    assert rebuilt == source


def test_headline_numbers_against_a_second_transcription():
    """The specification's own words, not its tables: `qresafe.md` §6 and `opensafetymini.md` §4."""
    figure = rows(QRESAFE, "figure1")
    for risk, said in {
        "Risk-I": [(18.5, 1.9), (16.9, 1.8), (42.3, 4.5)],
        "Risk-II": [(75.5, 13.6), (82.9, 18.2), (83.4, 19.1)],
        "Risk-III": [(81.9, 13.9), (92.6, 15.4), (95.7, 17.0)],
    }.items():
        for base, pair in zip(("AQLM", "LLM-QAT", "QLoRA"), said):
            row = figure["Llama-2-7B-Chat", risk, "4-bit", base]
            assert (float(row["asr_before_patch"]), float(row["asr_after_qresafe"])) == pair
    assert [float(row["asr"]) for row in QRESAFE.printed("table05").rows] == [1.6, 1.6, 1.8, 5.5, 13.9, 42.2]
    said = {
        "Llama-3.1-8B-Instruct": [93.06, 89.50, 93.25, 84.44, 84.25, 89.03],
        "Mistral-7B-Instruct-v0.2": [84.82, 83.13, 76.38, 79.48, 70.10, 77.88],
        "Qwen2.5-1.5B-Instruct": [83.13, 84.35, 85.27, 69.42, 8.35],
        "Qwen2.5-7B-Instruct": [89.69, 86.22, 87.99, 81.52, 76.27, 81.63],
        "Qwen2.5-14B-Instruct": [92.13, 92.60, 93.62, 92.87, 89.21, 93.25],
    }
    kinds = [("bfloat16", "FP16"), ("int4", "AWQ"), ("int4", "QUIK"), ("int4", "QUIP#"), ("int2", "QUIP#")]
    judged = rows(OSM, "table09")
    for model, numbers in said.items():
        for kind, number in zip([*kinds, ("int2", "AQLM")], numbers):
            assert float(judged[(model, *kind)]["osm_safe_pct"]) == number


def test_the_changes_of_table_9_follow_from_its_rates():
    """(osm - xs) / xs, and drops from the row of full precision: printed from unrounded rates, so within rounding."""
    table = rows(OSM, "table09") | rows(OSM, "table10")
    for (model, _, _), row in table.items():
        xsafety, osm = float(row["xsafety_safe_pct"]), float(row["osm_safe_pct"])
        assert 100 * (osm - xsafety) / xsafety == pytest.approx(float(row["rel_change_osm_vs_xsafety_pct"]), abs=0.12)
        full = table[model, "bfloat16", "FP16"]
        for name, rate in (("drop_from_fp16_xsafety_pp", xsafety), ("drop_from_fp16_osm_pp", osm)):
            if row[name]:
                column = "xsafety_safe_pct" if "xsafety" in name else "osm_safe_pct"
                assert float(full[column]) - rate == pytest.approx(float(row[name]), abs=0.011)


def test_the_averages_of_safetybench_follow_from_its_categories():
    """Weighted by the questions of each category of its public answers; four tables print the same averages."""
    sizes = [1934, 1778, 1566, 1805, 1149, 1299, 1904]
    full = rows(OSM, "table07")
    for row in full.values():
        categories = [float(row[name]) for name in list(row)[4:]]
        mean = sum(n * value for n, value in zip(sizes, categories)) / sum(sizes)
        assert mean == pytest.approx(float(row["avg_pct"]), abs=0.062)
    for (precision, method), row in rows(OSM, "table04").items():
        for model in list(row)[2:]:
            if row[model]:
                assert row[model] == full[model, precision, method]["avg_pct"]
    for key, row in rows(OSM, "table03").items():
        assert row["safetybench_avg_pct"] == full[key]["avg_pct"]
        assert row["hotpotqa_in_accuracy"] == rows(OSM, "table08")[key]["in_accuracy"]


def test_29_of_66_variants_have_numbers():
    found = {key for name in ("table07", "table08", "table09", "table10") for key in rows(OSM, name)}
    assert len([key for key in found if key[1] != "bfloat16"]) == 29


def test_figure_1_follows_from_the_tables():
    """Mean relative loss over the models, of each benchmark and of all together."""
    judged, choice, answers = rows(OSM, "table09") | rows(OSM, "table10"), rows(OSM, "table07"), rows(OSM, "table08")
    columns = [(judged, "xsafety_safe_pct"), (judged, "osm_safe_pct"), (choice, "avg_pct"), (answers, "in_accuracy")]
    for row in OSM.printed("figure1").rows:
        kind, losses = (row["precision"], row["method"]), []
        for table, name in columns:
            models = [key[0] for key in table if key[1:] == kind]
            assert len(models) == int(row["n_models"])
            full = {model: float(table[model, "bfloat16", "FP16"][name]) for model in models}
            losses.append([100 * (full[m] - float(table[(m, *kind)][name])) / full[m] for m in models])
        printed = [float(row[name]) for name in list(row)[3:]]
        assert [*map(fmean, losses), fmean(loss for of_one in losses for loss in of_one)] == pytest.approx(
            printed, abs=0.02
        )


def test_table_3_agrees_with_tables_11_to_13_but_for_what_its_footnotes_say():
    appendix = {
        "asr_risk1": (rows(QRESAFE, "table13"), "asr_after_ft"),
        "asr_risk2": (rows(QRESAFE, "table12"), "asr_10ep"),
        "asr_risk3": (rows(QRESAFE, "table11"), "asr_10shot"),
    }
    differ = set()
    for (bit, model, method), row in rows(QRESAFE, "table03").items():
        if method != "AWQ":
            for column, (table, name) in appendix.items():
                other = table[model, method, {"INT4": "4-bit", "INT8": "8-bit"}[bit]][name]
                if abs(float(row[column]) - float(other)) > 0.05:
                    differ.add((bit, model, method, column, other))
                    footnotes = marked("table03", column, bit=bit, model=model, method=method)
                    assert f"Table 13 has {other}" in footnotes
    assert differ == {
        ("INT4", "Llama-2-7B-Chat", "QLoRA", "asr_risk1", "42.5"),
        ("INT4", "Gemma-7B-Instruct", "QLoRA", "asr_risk1", "39.1"),
        ("INT8", "Gemma-7B-Instruct", "AQLM", "asr_risk1", "23.8"),
    }


def marked(table: str, column: str, **labels: str) -> str:
    """The footnotes of one cell of Q-resafe."""
    built = build(QRESAFE, table)
    line = next(line for line in built.lines if line.labels.items() >= labels.items())
    return " ".join(built.footnotes[place - 1] for place in line.cells[column].notes)


def test_footnotes_stand_where_a_reader_would_be_misled():
    assert "17.4" in marked("table03", "asr_risk1", bit="INT4", model="Llama-2-7B-Chat", method="AWQ")
    assert "42.4" in marked("table07", "asr_4bit", method="AWQ")
    assert marked("table07", "asr_3bit", method="AWQ") == ""
    assert any("66 variants" in text and "29" in text for text in build(OSM, "table09").remarks)


def test_every_printed_label_is_something_that_a_run_can_have():
    """Methods at these bits, benchmarks, decodings and judges are rows of the tables, or of a shipped experiment."""
    tables = Tables({})
    for paper, name in TABLES:
        for labels in paper.labels(paper.table(name)).values():
            for label, select in labels.items():
                if method := select.get("method"):
                    row = tables.get("methods", method, label)
                    assert select.get("bits", row.bits[0]) in row.bits
    for measure in [measure for paper in papers() for measure in paper.says.measures.values() if measure.select]:
        for noun, table in (("benchmark", "benchmarks"), ("judge", "judges")):
            assert any(value in tables.rows(table) for value in measure.select[noun]), measure.of


@pytest.fixture
def broken(tmp_path):
    """The papers with one text replaced in one of their files."""

    def read(file: str, old: str, new: str):
        import shutil

        folder = shutil.copytree(FOLDER, tmp_path / "published")
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
        return reading.papers(folder)

    return read


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("qresafe/paper.yaml", "QLoRA: {method: qlora}", "Qlora: {method: qlora}", "'QLoRA' is none of"),
        ("qresafe/paper.yaml", "heading: 8 bits", "headline: 8 bits", "unknown key"),
        (
            "qresafe/paper.yaml",
            "{measure: asr, heading: 8 bits",
            "{measure: asrr, heading: 8 bits",
            "'asrr' is none of",
        ),
        ("qresafe/paper.yaml", "where: {model: INT4}", "where: {model: INT5}", "no row is"),
        ("qresafe/paper.yaml", "name: Q-resafe", "name: [", "not readable as YAML"),
        ("qresafe/tables/table05.csv", "1.0,1.6", "1.0,1.6,9", "of its length"),
        ("qresafe/tables/table05.csv", "gpu_hours", "hours", "are not those of its file"),
    ],
)
def test_a_mistake_in_the_data_is_one_line_that_names_the_file(broken, file, old, new, told):
    with pytest.raises(UserError, match=told) as error:
        broken(file, old, new)
    assert "\n" not in str(error.value) and "published" in str(error.value)
