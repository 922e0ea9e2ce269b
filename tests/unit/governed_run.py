"""A synthetic run with what register and gate hash: artefacts, manifests, indexes of answers, verdicts and tables."""

from collections.abc import Iterator
from pathlib import Path

from report_run import copy_of, shared_run

from bitsafe.cells import Cell
from bitsafe.files import (
    read_json,
    read_jsonl,
    sha256_file,
    sha256_folder,
    sha256_json,
    sha256_text,
    write_json,
    write_jsonl,
    write_text,
)
from bitsafe.manifest import sha256_folder_of
from bitsafe.matrix.recipes import data_identity, recipe
from bitsafe.matrix.run import Run
from bitsafe.stats.csvfile import COLUMNS
from bitsafe.steps.make import source_folder
from bitsafe.steps.near_duplicates import COLUMNS as PAIRS


def governed_run(factory) -> Run:
    """A copy of the shared small run, sealed; its owner has said what production decodes with."""
    run = shared_run(factory)
    release = run.config.release.model_copy(update={"production_decoding": "default"})
    run = Run(run.config.model_copy(update={"release": release}))
    run.save()
    seal(run)
    return run


def copied(run: Run, folder: Path) -> Run:
    return copy_of(run, folder)


def seal(run: Run) -> None:
    """Give every cell its artefact and the index files that the steps would have left."""
    for cell in run.cells:
        made, answered = [], []
        judged: dict[str, list[dict]] = {judge: [] for judge in run.judges}
        for k in range(run.replicates(cell.model)):
            folder = run.replicate_folder(cell, k)
            rehash(folder)
            made.append({"replicate": k, "sha256": manifest(run, cell, k)})
            answered.append({"replicate": k, "files": listed(folder, "answers")})
            answered[-1]["artefact_sha256"] = sha256_folder(folder / "artefact")
            for judge in run.judges:
                judged[judge].append({"replicate": k, "files": listed(folder, f"verdicts/{judge}")})
        write_json(run.at(cell, "artefacts.json"), {"cell": str(cell), "replicates": made})
        write_json(run.at(cell, "answers.json"), {"cell": str(cell), "replicates": answered})
        for judge, replicates in judged.items():
            index = {"cell": str(cell), "judge": judge, "recipe": recipe("judge", run, cell, judge)}
            write_json(run.at(cell, f"verdicts.{judge}.json"), index | {"replicates": replicates})
    write_text(run.folder / "tables" / "near_duplicates.csv", ",".join(PAIRS) + "\n")
    index_tables(run)


def rehash(folder: Path) -> None:
    """Verdicts name the hash of the answer's text, as the judge step writes it."""
    for file in folder.glob("verdicts/*/*.jsonl"):
        texts = {row["id"]: row["answer"] for row in read_jsonl(folder / "answers" / file.name)}
        write_jsonl(file, [row | {"answer_sha": sha256_text(texts[row["id"]])} for row in read_jsonl(file)])


def manifest(run: Run, cell: Cell, replicate: int) -> str:
    """Write artefact, learned_from.json and manifest.json of a replicate; the manifest's hash."""
    folder = run.replicate_folder(cell, replicate)
    write_text(folder / "artefact" / "model.safetensors", f"{cell} {replicate}")
    write_text(folder / "artefact" / "generation_config.json", "{}")
    learned, data = [], None
    if named := run.risk_set(cell):
        learned = [sha256_text("one"), sha256_text("two")]
        data = {"name": named[0], **data_identity(named[1]), "rows": 2, "prompts_sha256": sha256_json(learned)}
    write_json(folder / "learned_from.json", learned)
    weights = sha256_folder_of(source_folder(run, cell.model, replicate), "*.safetensors")
    written = read_json(folder / "manifest.json") | {"data": data, "source": {"weights_sha256": weights}}
    write_json(folder / "manifest.json", written | {"artefact_sha256": sha256_folder(folder / "artefact")})
    return sha256_file(folder / "manifest.json")


def listed(folder: Path, below: str) -> dict[str, dict]:
    files = sorted((folder / below).glob("*.jsonl"))
    return {f"{below}/{file.name}": {"rows": 1, "sha256": sha256_file(file)} for file in files}


def index_tables(run: Run) -> None:
    """score.json, as the score step writes it."""
    read = {str(path.relative_to(run.folder)): sha256_file(path) for _cell, _judge, path in run.judge_files}
    files = {f"{name}.csv": sha256_file(file) for name in COLUMNS if (file := run.folder / f"{name}.csv").exists()}
    write_json(run.folder / "score.json", {"run": run.name, "read": read, "files": files})


def steps(record: dict) -> Iterator[tuple[str, str, str]]:
    """Name, state and reason of each step of a record."""
    for step in record["checklist"]:
        yield step["step"], step["state"], step.get("reason", "")
