"""distance: one cell's distance from full precision on full precision's answers, replicate after replicate."""

import time
from pathlib import Path
from typing import Any

from bitsafe.artefacts.load import load_dense
from bitsafe.cells import Cell
from bitsafe.distance.measures import known_of, log_probabilities, measured
from bitsafe.distance.texts import fixed_texts, read_texts, write_texts
from bitsafe.files import sha256_file, write_json, write_jsonl
from bitsafe.generate.device import place
from bitsafe.judges.step import read_answers
from bitsafe.matrix.recipes import recipe
from bitsafe.matrix.run import Run
from bitsafe.steps.make import benchmark_rows
from bitsafe.steps.status import telling


def distance(run: Run, cell: Cell) -> None:
    """Write distance/<benchmark>.jsonl of each replicate, a row a text; full precision first leaves the texts."""
    started, replicates = time.perf_counter(), []
    for replicate in range(run.replicates(cell.model)):
        folder = run.replicate_folder(cell, replicate)
        with telling(folder / "distance", "distance"):
            files = measure_replicate(run, cell, replicate, folder)
        listed = {file: {"rows": rows, "sha256": sha256_file(folder / file)} for file, rows in files.items()}
        replicates.append({"replicate": replicate, "files": listed})
    index = {"cell": str(cell), "recipe": recipe("distance", run, cell), "replicates": replicates}
    write_json(run.at(cell, "distance.json"), index | {"seconds": round(time.perf_counter() - started, 3)})
    print(f"{cell}: {sum(file['rows'] for one in replicates for file in one['files'].values())} texts measured")


def measure_replicate(run: Run, cell: Cell, replicate: int, folder: Path) -> dict[str, int]:
    raw, tokenizer = load_dense(folder / "artefact", run.model(cell.model).dtype)
    model, baseline, files = place(raw), run.replicate_folder(cell.baseline, replicate), {}
    for benchmark in run.measured_benchmarks:
        texts = baseline / f"distance/{benchmark}.safetensors"
        if cell == cell.baseline:
            leave_texts(run, benchmark, model, tokenizer, folder, texts)
        rows = [measured(known, log_probabilities(model, text), text) for text, known in read_texts(texts)]
        file = f"distance/{benchmark}.jsonl"
        write_jsonl(folder / file, rows)
        files[file] = len(rows)
    return files


def leave_texts(run: Run, benchmark: str, model: Any, tokenizer: Any, folder: Path, file: Path) -> None:
    """Write full precision's answers under the run's first plain decoding, and its likeliest tokens in them."""
    decoding, settings = run.measured_decoding, run.config.distance
    answers = folder / f"answers/{benchmark}.{decoding}.jsonl"
    pairs = read_answers(answers, benchmark_rows(run, benchmark), run.config.generate.samples)
    texts = fixed_texts(tokenizer, pairs, run.decoding(decoding).model_dump(), settings.tokens)
    write_texts(file, texts, [known_of(log_probabilities(model, text), settings.top) for text in texts])
