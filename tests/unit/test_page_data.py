"""What the page's charts and transcripts are made of: packing, alignment, codes, flips, limits and costs."""

import base64
import gzip
import json

import numpy as np
import pytest
from report_run import BABBLE, copy_of, edit, shared_run

from bitsafe.cells import Cell
from bitsafe.errors import UserError
from bitsafe.files import read_jsonl, write_jsonl
from bitsafe.matrix.run import Run
from bitsafe.report.page import scripts
from bitsafe.report.page.answers import Group, Said, coded, filled, glanced, groups_of, outcome
from bitsafe.report.page.charts import chart_data, short_name
from bitsafe.report.page.choice import Outline, flips, keep, outline
from bitsafe.report.page.cost import cost, hours
from bitsafe.report.page.explorer import chains_of, explorer
from bitsafe.report.page.judges import quality_rows
from bitsafe.report.page.packing import Texts, inline_json, packed_json, packed_numbers, starts
from bitsafe.report.read import Results

FULL, STE = Cell("toy", "full", 16), Cell("toy", "ste", 4, "harmful")
PATCHED = Cell("toy", "ste", 4, "harmful", "qresafe")
HARMFUL, SAFE, UNSCORED = 1, 2, 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return shared_run(tmp_path_factory)


def unpacked(data: str) -> bytes:
    return gzip.decompress(base64.b64decode(data))


def test_what_is_packed_is_read_back_and_is_the_same_every_time():
    values = [3, -1, 70_000]
    assert np.frombuffer(unpacked(packed_numbers(values, "i4")), "<i4").tolist() == values
    assert json.loads(unpacked(packed_json(["</script>", "\ud800", "ü"]))) == ["</script>", "\ud800", "ü"]
    assert packed_json([1]) == packed_json([1]) and "<" not in packed_json(["<" * 99])
    assert starts([2, 0, 3]) == [0, 2, 2] and starts([]) == []


def test_inline_json_can_not_end_its_element():
    hostile = {"a": "</script><!--<script>&amp;"}
    assert not set("<>&") & set(inline_json(hostile)) and json.loads(inline_json(hostile)) == hostile


def test_texts_are_kept_once_and_cut_into_chunks():
    texts = Texts()
    assert [texts.number(text) for text in ("aaaa", "bb", "aaaa", "cccc")] == [0, 1, 0, 2] and len(texts) == 3
    found = [(first, json.loads(unpacked(data))) for first, data in texts.chunks(size=5)]
    assert found == [(0, ["aaaa", "bb"]), (2, ["cccc"])]
    assert Texts().chunks() == []


def row(verdict, **more):
    return {"verdict": verdict, "refused": None, "value": None, "degenerate": False} | more


@pytest.mark.parametrize(
    ("said", "code", "kind", "expected"),
    [
        (row("harmful"), 1, "harmful", HARMFUL),
        (row("safe", refused=True), 2 + 16, "harmful", SAFE),
        (row("safe", refused=True), 2 + 16, "over_refusal", 2),
        (row("safe", refused=False, degenerate=True), 2 + 8 + 32, "over_refusal", 1),
        (row("unscored", refused=True), 4 + 16, "over_refusal", 0),
        (row("ambiguous"), 3, "harmful", 0),
        (row("safe", value=1.0), 2 + 192, "utility", 3),
        (row("safe", value=0.5), 2 + 128, "utility", 2),
        (row("safe", value=0.0), 2 + 64, "utility", 1),
    ],
)
def test_a_verdict_in_eight_bits(said, code, kind, expected):
    assert coded(said) == code and outcome(code, kind) == expected


def test_every_answer_of_the_run_is_held_and_aligned(run):
    """Naive: each text and verdict found again through the columns is that of the files."""
    found = explorer(run)
    assert (
        found.kept
        == found.answers
        == sum(len(read_jsonl(file)) for file in run.folder.rglob("answers/*.default.jsonl"))
    )
    data = {name: unpacked(block) for name, block in found.blocks}
    text, prompt = (np.frombuffer(data[f"column-{name}"], "<i4") for name in ("text", "prompt"))
    prompts = json.loads(data["prompts"])
    texts = [one for k in range(len(found.meta["chunks"])) for one in json.loads(data[f"texts-{k}"])]
    group = next(g for g in found.meta["groups"] if g["benchmark"] == "toy_forbidden" and g["replicate"] == 1)
    for number, start in group["cells"].items():
        cell = next(c for c in run.cells if found.meta["cells"][number]["arm"] == arm_of(c))
        folder = run.replicate_folder(cell, 1)
        answers = {row["id"]: row["answer"] for row in read_jsonl(folder / "answers/toy_forbidden.default.jsonl")}
        for judge, name in enumerate(run.judges):
            code = np.frombuffer(data[f"column-code{judge}"], "u1")
            said = {row["id"]: row for row in read_jsonl(folder / f"verdicts/{name}/toy_forbidden.default.jsonl")}
            for slot in range(group["n"]):
                asked = prompts[prompt[group["slot"] + slot]][0]
                assert texts[text[start + slot]] == answers[asked]
                assert code[start + slot] == coded(said[asked])


def arm_of(cell: Cell) -> str:
    from bitsafe.report.page.explorer import arm

    return arm(cell)


def test_prompts_stand_as_the_decoding_asks_them(run):
    data = dict(explorer(run).blocks)
    name, asked, system = json.loads(unpacked(data["prompts"]))[0]
    assert name == "toy_forbidden-000" and asked.startswith("Teach me") and system == "Answer in a short and clear way."


def group_of(codes: dict[Cell, list[int]], judges=("judge",)) -> Group:
    slots = [(f"p{k}", "", 0) for k in range(len(next(iter(codes.values()))))]
    group = Group("toy", "b", "d", 0, "harmful", list(judges), slots=slots)
    group.texts = {cell: dict.fromkeys(slots, "x") for cell in codes}
    group.said = {(cell, "judge"): {s: Said(c) for s, c in zip(slots, found)} for cell, found in codes.items()}
    return group


def test_flips_are_between_neighbours_that_are_known():
    codes = {FULL: [SAFE, SAFE, SAFE, SAFE], STE: [HARMFUL, SAFE, UNSCORED, 0], PATCHED: [HARMFUL, HARMFUL, HARMFUL, 1]}
    group = group_of(codes)
    assert [flips(group, (FULL, STE), slot) for slot in group.slots] == [True, False, False, False]
    assert [flips(group, (FULL, STE, PATCHED), slot) for slot in group.slots] == [True, True, False, False]


def test_the_limit_keeps_the_prompts_that_flip_first_in_their_order():
    one = outline(group_of({FULL: [SAFE] * 4, STE: [SAFE, HARMFUL, SAFE, HARMFUL]}), [(FULL, STE)])
    assert one.flips == [0, 1, 0, 1] and one.cells == [FULL, STE] and one.answers == 8
    names = {limit: [slot[0] for slot in keep([one], limit)[0]] for limit in (8, 7, 6, 5, 1)}
    assert names == {8: ["p0", "p1", "p2", "p3"], 7: ["p0", "p1", "p3"], 6: ["p0", "p1", "p3"], 5: ["p1", "p3"], 1: []}


def test_groups_take_turns_in_what_is_kept():
    slots = [(f"p{k}", "", 0) for k in range(3)]
    first, second = Outline(slots, [FULL, STE], 0, [0, 2, 2]), Outline(slots, [FULL], 0, [1, 2, 0])
    assert keep([first, second], 5) == [[slots[1], slots[2]], [slots[1]]]
    assert keep([first, second], 6) == [[slots[1], slots[2]], [slots[0], slots[1]]]


def test_a_limited_page_says_so(run):
    limited = Run(run.config.model_copy(update={"report": run.config.report.model_copy(update={"transcripts": 200})}))
    found = explorer(limited)
    assert 0 < found.kept <= 200 < found.answers and found.words.startswith(
        f"{found.kept} of {found.answers:,} answers"
    )
    none = Run(run.config.model_copy(update={"report": run.config.report.model_copy(update={"transcripts": 0})}))
    assert explorer(none).kept == 0 and "config" in explorer(none).words


def test_chains_lead_from_full_precision_over_the_cell_to_its_patch(run):
    chains = chains_of(run)
    assert (FULL, STE) in chains and (FULL, STE, PATCHED) in chains and len(chains) == len(run.cells) - 1


def test_answers_that_are_no_utf8_and_cells_without_answers(run, tmp_path):
    run = copy_of(run, tmp_path)
    file = run.replicate_folder(STE, 0) / "answers/toy_forbidden.default.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    lines[0] = lines[0].replace(b'"answer": "', b'"answer": "\xff\xfe \\ud800 ')
    file.write_bytes(b"".join(lines))
    (run.replicate_folder(PATCHED, 0) / "answers/toy_forbidden.default.jsonl").unlink()
    group = forbidden(run)
    assert next(iter(group.texts[STE].values())).startswith("��")
    assert PATCHED not in group.texts
    file.write_text("[]\n")
    with pytest.raises(UserError, match=r"toy_forbidden\.default\.jsonl:1: not a row"):
        forbidden(run)


def forbidden(run: Run) -> Group:
    """All of the run's first group."""
    group = next(groups_of(run))
    assert (group.benchmark, group.replicate) == ("toy_forbidden", 0)
    return filled(run, group, glanced(run, group).slots)


def test_a_grid_and_its_samples_are_slots_of_their_own(run, tmp_path):
    run = copy_of(run, tmp_path)
    for name in ("answers", "verdicts/keyword"):
        file = run.replicate_folder(STE, 0) / name / "toy_forbidden.default.jsonl"
        rows = read_jsonl(file)[:1]
        write_jsonl(file, [r | {"setting": s, "sample": k} for r in rows for s in ("a", "b") for k in (0, 1)])
    group = forbidden(run)
    assert [slot[1:] for slot in group.texts[STE]] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_charts_show_the_numbers_of_the_csv_files(run):
    results = Results.read(run.folder)
    data = chart_data(run, results)
    assert [panel["title"].rpartition(" ")[2] for panel in data["panels"]] == ["reference", "keyword"]
    panel, entries = data["panels"][0], results.leading[0].entries
    for cell, entry in zip(panel["cells"], entries):
        assert (cell["asr"], cell["asr_low"]) == (entry.score["asr"], entry.score["asr_low"])
        assert cell["utility"]["value"] == entry.beside["utility"]["value"]
    patched = panel["cells"][[e.cell for e in entries].index(PATCHED)]
    assert panel["cells"][patched["before"]]["name"] == "ste 4-bit, risk III"
    assert patched["short"] == short_name(PATCHED) == "ste 4-bit III + qresafe"
    places = [entry.cell for entry in entries]
    tuned, plain = panel["cells"][places.index(STE)], panel["cells"][places.index(Cell("toy", "rtn", 4))]
    assert tuned["reference"] == places.index(STE.same_risk_full) and plain["reference"] == places.index(FULL)
    total = {row["cell"]: row for row in panel["contrasts"]["total"]}
    place = [e.cell for e in entries].index(STE)
    assert total[place]["n_flipped"] == entries[place].contrasts["total"]["n_flipped"]
    assert panel["noise"] == {"changed": panel["noise"]["changed"], "moved": 0} or panel["noise"]["moved"] > 0
    json.loads(inline_json(data))


def test_a_failed_cell_has_its_reason_and_no_number(run, tmp_path):
    run = copy_of(run, tmp_path)
    edit(run, "scores", STE.columns(), asr=None, reason="loss is not finite")
    cells = chart_data(run, Results.read(run.folder))["panels"][0]["cells"]
    failed = next(cell for cell in cells if cell["name"] == "ste 4-bit, risk III")
    assert failed["asr"] is None and failed["reason"] == "loss is not finite"


def test_cost_adds_up_timings_and_bills(run, tmp_path):
    run = copy_of(run, tmp_path)
    head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    files = {
        "generate/a.tsv": "60\t0:01:00\t500\t1\t1\t1\t0\t0\t90\t50\n",
        "score.tsv": "2\t0:00:02\tNA\tNA\tNA\tNA\tNA\tNA\tNA\tNA\n",
    }
    files["generate/b.tsv"] = "30\t0:00:30\t700\t1\t1\t1\t0\t0\t90\t20\n"
    for name, line in files.items():
        (run.folder / "timings" / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / "timings" / name).write_text(head + line)
    bills = [{"key": "a", "tokens_in": 1000, "tokens_out": 10, "counted": True, "dollars": 0.5}]
    bills.append({"key": "b", "tokens_in": 500, "tokens_out": 5, "counted": False, "dollars": 0.25})
    write_jsonl(run.replicate_folder(STE, 0) / "verdicts/keyword.store.jsonl", bills)
    found = cost(run)
    assert [(r["step"], r["jobs"], r["wall"], r["cpu"], r["memory"]) for r in found["steps"]] == [
        ("generate", "2", "1.5 min", "70 s", "700 MB"),
        ("score", "1", "2 s", "0 s", "–"),
    ]
    assert found["total"]["jobs"] == "3" and found["total"]["memory"] == "700 MB"
    (bill,) = found["judges"]
    assert (bill["replies"], bill["tokens_in"], bill["dollars"], bill["uncounted"]) == ("2", "1,500", "0.75", "1")
    assert hours(7200) == "2.0 h"


def test_quality_of_a_judge_without_labels_has_its_reason():
    known = {"judge": "a", "model": "m", "benchmark": "b", "decoding": "d", "outcome": "harmful", "reason": ""}
    known |= {"n_labels": 1000, "sensitivity": 0.838, "sensitivity_low": 0.76, "sensitivity_high": 0.89, "source": "X"}
    rows = quality_rows([known, known | {"sensitivity": None, "n_labels": None, "reason": "no human labels"}])
    assert rows[0]["sensitivity"] == "83.8 %" and rows[0]["sensitivity_interval"] == "[76.0, 89.0]"
    assert rows[1]["reason"] == "no human labels" and rows[0]["reason"] == ""


def test_a_library_that_was_changed_is_refused(monkeypatch):
    monkeypatch.setitem(scripts.VENDOR, "d3.min.js", "0" * 64)
    with pytest.raises(UserError, match=r"d3\.min\.js: its sha256 is not the recorded one"):
        scripts._vendored("d3.min.js", scripts.VENDOR["d3.min.js"])


def test_libraries_lie_with_their_licences_and_hashes():
    folder = scripts.ASSETS / "vendor"
    about = (folder / "README.md").read_text(encoding="utf-8")
    assert all(name in about and sha256 in about for name, sha256 in scripts.VENDOR.items())
    assert {file.name for file in folder.iterdir()} == {*scripts.VENDOR, "LICENSE.d3", "LICENSE.plot", "README.md"}


def test_babble_is_marked(run):
    cell = Cell("toy", "rtn", 2)
    group = forbidden(run)
    slot = next(slot for slot, text in group.texts[cell].items() if text == BABBLE)
    assert group.code(cell, "reference", slot) >> 5 & 1
