"""Incremental by construction (design §2): each change plans exactly what depends on it. All by dry runs."""

import os
import shutil
import subprocess
from pathlib import Path

SUMMARY = {"score", "tables", "figures", "report"}
SETS = {"near_duplicates"}  # planned when a set or a benchmark changes


def jobs_of(cell: str, judges: tuple[str, ...] = ("keyword", "reference")) -> set[str]:
    """Every job of one cell."""
    model, method, bits, risk, stage = cell.split("/")
    nouns = f"{model}/{method}/{bits}/{risk}"
    making = f"quantize {nouns}" if stage == "quantized" else f"patch {nouns}/{stage}"
    return {making, f"generate {nouns}/{stage}", *(f"judge {nouns}/{stage}/{judge}" for judge in judges)}


CELLS = [
    "toy/full/16/none/quantized",
    "toy/rtn/4/none/quantized",
    "toy/ste/4/harmful/quantized",
    "toy/ste/4/harmful/qresafe",
]


def steps_of(step: str, suffixes: tuple[str, ...] = ("",)) -> set[str]:
    return {f"{step} {cell}{suffix}" for cell in CELLS for suffix in suffixes}


def test_a_finished_run_plans_nothing(finished):
    assert finished.planned() == set()


def test_a_new_quantizer_plans_exactly_its_cells(project):
    """One Python file and one row."""
    source = (project.folder / "workflow/bitsafe/quantizers/rtn.py").read_text()
    (project.folder / "workflow/bitsafe/quantizers/mine.py").write_text(source)
    row = "\nmine: {module: bitsafe.quantizers.mine, bits: [8, 4], risk_use: 'no', params: {group_size: 32}}\n"
    with (project.folder / "workflow/tables/methods.yaml").open("a") as table:
        table.write(row)
    assert project.planned() == set(), "the row alone plans nothing"
    project.edit("mini.yaml", "{methods: [rtn], bits: [4]}", "{methods: [rtn, mine], bits: [4]}")
    assert project.planned() == jobs_of("toy/mine/4/none/quantized") | SUMMARY


def test_a_bumped_version_plans_its_cells_and_their_successors(project):
    project.edit("workflow/bitsafe/quantizers/ste.py", "VERSION = 1", "VERSION = 2")
    changed = jobs_of("toy/ste/4/harmful/quantized") | jobs_of("toy/ste/4/harmful/qresafe")
    assert project.planned() == changed | SUMMARY


def test_a_bumped_patch_version_leaves_the_quantized_cell_alone(project):
    project.edit("workflow/bitsafe/patches/qresafe.py", "VERSION = 1", "VERSION = 2")
    assert project.planned() == jobs_of("toy/ste/4/harmful/qresafe") | SUMMARY


def test_touching_every_file_plans_nothing(project):
    for path in project.folder.rglob("*"):
        if path.is_file() and "results" not in path.parts and ".snakemake" not in path.parts:
            os.utime(path)
    assert project.planned() == set()


def test_a_git_checkout_plans_nothing(project):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=project.folder, check=True, capture_output=True)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "one")
    git("rm", "-rq", "--cached", ".")
    for name in ("Snakefile", "workflow", "data", "config.yaml", "profiles"):
        subprocess.run(["rm", "-rf", name], cwd=project.folder, check=True)
    git("reset", "-q", "--hard")
    assert project.planned() == set()


def test_editing_comments_plans_nothing(project):
    for file in ("workflow/bitsafe/quantizers/rtn.py", "workflow/bitsafe/steps/make.py", "workflow/rules/judge.smk"):
        path = project.folder / file
        path.write_text(path.read_text() + "\n# a remark\n")
    with (project.folder / "workflow/tables/methods.yaml").open("a") as table:
        table.write("\n# a remark\n")
    project.edit("workflow/tables/methods.yaml", "round to nearest, no data", "round to the nearest level")
    assert project.planned() == set()


def test_a_new_bit_width_plans_only_its_cell(project):
    project.edit("mini.yaml", "{methods: [rtn], bits: [4]}", "{methods: [rtn], bits: [4, 3]}")
    assert project.planned() == jobs_of("toy/rtn/3/none/quantized") | SUMMARY


def test_a_new_risk_plans_only_its_cells(project):
    project.edit("mini.yaml", "risks: [harmful]", "risks: [benign, harmful]")
    new = jobs_of("toy/ste/4/benign/quantized") | jobs_of("toy/ste/4/benign/qresafe")
    assert project.planned() == new | SUMMARY | SETS


def test_a_new_patch_plans_only_its_cell(project):
    project.edit("mini.yaml", "patches: [qresafe]", "patches: [qresafe, dpo]")
    assert project.planned() == jobs_of("toy/ste/4/harmful/dpo") | SUMMARY


def test_a_new_benchmark_plans_one_generate_and_its_judges_a_cell(project):
    project.edit("mini.yaml", "[few_forbidden, few_benign]", "[few_forbidden, few_borderline, few_benign]")
    expected = steps_of("generate") | steps_of("judge", ("/keyword", "/reference")) | SUMMARY | SETS
    assert project.planned() == expected


def test_a_new_judge_plans_judge_and_score_only(project):
    with (project.folder / "mini.yaml").open("a") as config:
        config.write("  judges: {strict: {base: keyword, phrases: [Sorry]}}\njudges: [keyword, reference, strict]\n")
    assert project.planned() == steps_of("judge", ("/strict",)) | SUMMARY


def test_a_changed_parameter_plans_its_cell(project):
    with (project.folder / "mini.yaml").open("a") as config:
        config.write("  methods: {rtn: {base: rtn, group_size: 32}}\n")
    planned = project.snakemake("-n")
    assert planned.returncode == 2 and "circle" in planned.stdout, "a row cannot derive itself"
    project.edit("mini.yaml", "  methods: {rtn: {base: rtn, group_size: 32}}\n", "")
    project.edit(
        "workflow/tables/methods.yaml",
        'risk_use: "no"\n  params: {group_size: 64',
        'risk_use: "no"\n  params: {group_size: 32',
    )
    assert project.planned() == jobs_of("toy/rtn/4/none/quantized") | SUMMARY


def test_changed_data_plans_what_reads_it(project):
    """Files that ship with the repository enter by content."""
    file = project.folder / "data/conversations/toy_patch.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    assert project.planned() == jobs_of("toy/ste/4/harmful/qresafe") | SUMMARY | SETS


def test_other_prompts_for_the_pairs_plan_their_patch_alone(project):
    table, first = "workflow/tables/patches.yaml", "    prompts: null\n    tau: 0.2\n"
    project.edit(table, first, f"{first}    pairs_from: toy_patch\n")
    assert project.planned() == set(), "the model's own patch set by its name"
    project.edit(table, "pairs_from: toy_patch", "pairs_from: calibration")
    assert project.planned() == jobs_of("toy/ste/4/harmful/qresafe") | SUMMARY | SETS


def test_a_missing_output_plans_it_again(project):
    Path(project.folder / "results/mini/report.html").unlink()
    assert project.planned() == {"report"}


def test_a_deleted_cell_is_made_again(project):
    shutil.rmtree(project.folder / "results/mini/toy/ste/4bit/harmful/qresafe")
    assert project.planned() == jobs_of("toy/ste/4/harmful/qresafe") | SUMMARY
    shutil.rmtree(project.folder / "results/mini/toy/ste/4bit/harmful")
    assert project.planned() == jobs_of("toy/ste/4/harmful/qresafe") | jobs_of("toy/ste/4/harmful/quantized") | SUMMARY
