"""Whose prompts a patch learns from, and that no benchmark of the run asks them, however a decoding puts it."""

from pathlib import Path

import pytest

from bitsafe.cells import Cell
from bitsafe.config import Config
from bitsafe.errors import UserError
from bitsafe.files import read_json, write_json, write_jsonl
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run
from bitsafe.steps.generate import generate
from bitsafe.steps.make import Making, asked_rows, data_facts, learning_rows, make_artefacts, prompt_hashes

CELL = Cell("toy", "ste", 4, "harmful", "mine")


def run_of(pairs_from: str | None, **config) -> Run:
    """`mine` is Q-resafe with `pairs_from`, on ste at risk III."""
    params = {} if pairs_from is None else {"pairs_from": pairs_from}
    tables = {"patches": {"mine": {"base": "qresafe", "params": params}}}
    block = {"methods": ["ste"], "bits": [4], "risks": ["benign", "harmful"], "patches": ["mine", "dpo"]}
    tables |= config.pop("tables", {})
    return Run(Config(**{"matrix": [block], "replicates": 1, "tables": tables} | config))


def test_the_three_sources_of_prompts():
    named = {source: run_of(source).patch_set(CELL)[0] for source in (None, "patch_set", "calibration", "everyday")}
    assert named == {None: "toy_patch", "patch_set": "toy_patch", "calibration": "toy_harmful", "everyday": "everyday"}
    benign = Cell("toy", "ste", 4, "benign", "mine")
    assert run_of("calibration").patch_set(benign)[0] == "toy_benign", "each cell's own"
    run = run_of("calibration")
    assert run.patch_set(CELL) == run.risk_set(CELL)
    assert run.params(CELL)["pairs_from"] == "calibration" and run.patch_set(benign)[1] == run.risk_set(benign)[1]


def recipes(run: Run) -> dict[str, str]:
    return {str(cell): recipe("patch" if cell.is_patched else "quantize", run, cell) for cell in run.cells}


def test_another_set_moves_the_recipe_of_its_patch_and_of_nothing_else():
    before, after = recipes(run_of(None)), recipes(run_of("calibration"))
    moved = {cell for cell in before if before[cell] != after[cell]}
    assert moved == {f"toy/ste/4bit/{risk}/mine" for risk in ("benign", "harmful")}
    assert before == recipes(run_of("patch_set")) == recipes(run_of("toy_patch")), "the same set by another name"
    at_harmful = recipes(run_of("toy_harmful"))
    assert at_harmful[str(CELL)] == after[str(CELL)]


def conversation(name: str, prompt: str) -> dict:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "An answer."}]
    return {"id": name, "messages": messages}


@pytest.fixture
def overlapping(tmp_path: Path):
    """A run with two benchmarks and a set of four: b asks one of them, the agent of decoding `x` another."""
    (tmp_path / "results").mkdir()

    def table(name: str, rows: list[dict], **more) -> dict:
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
        return {"licence": "-", "file": str(tmp_path / f"{name}.jsonl"), **more}

    def asks(*prompts: str) -> list[dict]:
        return [{"id": f"q{k}", "messages": [{"role": "user", "content": text}]} for k, text in enumerate(prompts)]

    def made(learned: tuple[str, ...], limit: int | None = None, **config) -> Run:
        rows = [conversation(f"c{k}", text) for k, text in enumerate(learned)]
        tables = {
            "benchmarks": {
                "a": table("a", asks("One?"), kind="harmful"),
                "b": table("b", asks("Two?", "Three?"), kind="utility"),
            },
            "datasets": {"mine": table("mine", rows, limit=limit, risk="harmful", provenance="this test")},
            "decodings": {"x": {"base": "default", "user_prefix": "Agent, do: "}},
        }
        given = {"benchmarks": ["a", "b"], "decodings": ["default", "x"], "results": str(tmp_path / "results")}
        return run_of("mine", tables={**run_of("mine").config.tables, **tables}, **(given | config))

    return made


@pytest.mark.parametrize(
    ("shared", "benchmark"),
    [("one? ", "a"), ("THREE?", "b"), ("Agent, do:  two?", "b under x")],
)
def test_an_overlap_with_any_benchmark_is_an_error(overlapping, shared, benchmark):
    run = overlapping(("Four?", shared))
    with pytest.raises(UserError, match=rf"data set mine: 1 of its rows stand in benchmark {benchmark} too .*: c1"):
        learning_rows(run, run.patch_set(CELL), answered=False)


def test_what_no_decoding_of_the_run_puts_so_is_no_overlap(overlapping):
    run = overlapping(("Four?", "Agent, do: Two?"), decodings=["default"])
    assert len(learning_rows(run, run.patch_set(CELL), answered=False)) == 2
    assert list(asked_rows(run)) == ["a", "b"]


def test_a_limit_draws_from_what_no_benchmark_asks(overlapping):
    run = overlapping(("One?", "Three?", "Agent, do: One?", "Four?", "Five?", "Six?"))
    drawn = [learning_rows(run, run.patch_set(CELL), answered=False, limit=count) for count in (2, 3)]
    assert [row["id"] for row in drawn[1]] == ["c3", "c4", "c5"] and len(drawn[0]) == 2
    with pytest.raises(UserError, match="4 held-out rows are wanted, 3 of 6 are left"):
        learning_rows(run, run.patch_set(CELL), answered=False, limit=4)


def test_of_two_limits_the_smaller_counts(overlapping):
    """A cell that is tuned on two rows of a set is not patched on more of it than those."""
    run = overlapping(("Four?", "Five?", "Six?", "Seven?"), limit=2)
    own = learning_rows(run, run.patch_set(CELL), answered=True)
    assert len(own) == 2 and learning_rows(run, run.patch_set(CELL), answered=False, limit=64) == own
    assert learning_rows(run, run.patch_set(CELL), answered=False, limit=1)[0] in own


def test_the_manifest_names_the_set_and_its_prompts(overlapping):
    run = overlapping(("Four?", "Five?"))
    rows = learning_rows(run, run.patch_set(CELL), answered=False)
    facts = data_facts(run.patch_set(CELL), rows)
    assert (facts["name"], facts["rows"]) == ("mine", 2) and facts["content"] == facts["content"].lower()
    assert facts["prompts_sha256"] != data_facts(run.patch_set(CELL), rows[:1])["prompts_sha256"]


def test_a_benchmark_that_comes_later_meets_neither_the_patchs_rows_nor_the_cells(overlapping):
    """`generate` looks at what the patched cell and the cell below it have learned, before it loads a model."""
    run = overlapping(("Four?",))
    for stage, learned in ((CELL, ["Five?"]), (CELL.quantized, ["Agent, do: Three?"])):
        folder = run.replicate_folder(stage, 0)
        folder.mkdir(parents=True)
        write_json(folder / "learned_from.json", prompt_hashes([conversation("c", text) for text in learned]))
    with pytest.raises(UserError, match=r"benchmark b under x: 1 of its prompts .*harmful/quantized learned from"):
        generate(run, CELL)


def test_what_is_scored_beside_the_pairs_is_recorded_as_learned(overlapping):
    run = overlapping(("Four?",))
    rows, beside = [conversation("c", "Four?")], [conversation("d", "Five?")]

    def make(replicate: int, source: Path, out: Path, given: list[dict]) -> dict:
        (out / "config.json").write_text("{}")
        assert given == rows
        return {}

    write_json(run.replicate_folder(CELL.quantized, 0) / "manifest.json", {"artefact_sha256": "0"})
    make_artefacts(run, CELL, Making("patch", make, rows, run.patch_set(CELL), beside))
    folder = run.replicate_folder(CELL, 0)
    assert read_json(folder / "learned_from.json") == prompt_hashes(rows + beside)
    assert read_json(folder / "manifest.json")["data"] == data_facts(run.patch_set(CELL), rows)
