"""What each job of a run is expected to take: the formulas applied to its cell."""

from bitsafe.cells import Cell
from bitsafe.matrix.run import Run
from bitsafe.resources.architecture import architecture
from bitsafe.resources.coefficients import Row, coefficients
from bitsafe.resources.formulas import (
    MB,
    Estimate,
    artefact_bytes,
    judge_seconds,
    memory,
    model_seconds,
    weight_seconds,
)
from bitsafe.resources.rows import Architecture
from bitsafe.resources.work import Work, Workload

LOADING = ("quantize", "patch", "generate", "distance")  # steps that load the model of their cell


class Estimates:
    """Estimates of the jobs of one run."""

    def __init__(self, run: Run) -> None:
        self.run, self.workload = run, Workload(run)
        self._sizes: dict[str, Architecture] = {}
        self._known: dict[tuple, Estimate] = {}

    def size(self, model: str) -> Architecture:
        if model not in self._sizes:
            self._sizes[model] = architecture(self.run, model)
        return self._sizes[model]

    def row(self, step: str, cell: Cell, work: Work) -> Row:
        """The coefficients of a job; what fine-tunes but has nothing to learn from only copies."""
        known, method = coefficients(), self.run.method(cell)
        if step == "patch":
            return known.of_patch(self.run.patch(cell).module, method)
        if step != "quantize":
            return known.steps[step]
        idle = method.risk_use == "finetune" and not work.trained
        return known.quantize["no"] if idle else known.of_method(method)

    def on_gpu(self, row: Row, model: str) -> bool:
        least = self.run.config.resources.gpu_from
        return bool(row.worked) and least is not None and self.size(model).parameters >= least

    def of(self, step: str, cell: Cell, judge: str | None = None) -> Estimate:
        """Of one job that loads a model, or of a judge's."""
        if step == "judge":
            return self._judging(cell, judge)
        if step == "generate" and self.run.config.generate.engine == "openai":
            return Estimate(60 + self.workload.of(step, cell).decoded / 1000, 1000)  # its server does the work
        key = step, self.alike(step, cell)
        if key not in self._known:
            self._known[key] = self._loading(step, cell)
        return self._known[key]

    def alike(self, step: str, cell: Cell | None) -> tuple:
        """What cells share whose jobs of a step are alike: their model, if they are asked, and all but the bits."""
        if cell is None:
            return ()
        if step in ("generate", "distance", "judge"):
            return cell.model, cell == cell.baseline
        return cell.model, cell.method, cell.risk, cell.stage

    def _loading(self, step: str, cell: Cell) -> Estimate:
        work = self.workload.of(step, cell)
        row, size = self.row(step, cell, work), self.size(cell.model)
        on_gpu, known = self.on_gpu(row, cell.model), coefficients()
        speed = self.run.config.resources.gpu_speed if on_gpu else self.run.config.resources.cpu_speed
        device = known.devices["gpu" if on_gpu else "cpu"]
        seconds = model_seconds(row, size, work, device, known.devices["cpu"], self.cores(cell.model))
        seconds += weight_seconds(row, size, on_gpu)
        total = row.seconds + self.run.replicates(cell.model) * seconds / speed
        return Estimate(total, *memory(row, size, work, on_gpu))

    def cores(self, model: str) -> int:
        """Cores of a job that loads the model: several where the model is as large as one that takes GPUs."""
        least = self.run.config.resources.gpu_from
        return coefficients().requests.cpus if least is not None and self.size(model).parameters >= least else 1

    def _judging(self, cell: Cell, judge: str) -> Estimate:
        judge_row = self.run.judge(judge)
        row = coefficients().of_judge(judge_row.module)
        answers = self.workload.of("judge", cell, judge).answers
        requests = answers * (2 if judge_row.pairwise else 1)
        every = self.run.replicates(cell.model)
        seconds = judge_seconds(row, every * answers, every * requests, judge_row.endpoint.get("concurrency", 1))
        return Estimate(seconds, row.mb + answers * row.answer_kb / 1e3)

    def fetching(self, model: str) -> Estimate:
        row, weights = coefficients().steps["fetch_model"], self.size(model).parameters
        return Estimate(row.seconds + 2 * weights / row.bytes_a_second, row.mb + row.loaded * weights / MB)

    def whole_run(self, step: str) -> Estimate:
        """Of a step that is one job of the run: only scoring grows with it."""
        row = coefficients().steps[step]
        if step != "score":
            return Estimate(row.seconds, row.mb)
        count = self.verdicts()
        return Estimate(row.seconds + count / row.verdicts_a_second, row.mb + count * row.verdict_kb / 1e3)

    def verdicts(self) -> float:
        """Rows of all verdicts of the run."""
        return sum(
            self.run.replicates(cell.model) * self.workload.of("judge", cell, judge).answers
            for cell in self.run.cells
            for judge in self.run.judges
        )

    def artefact_mb(self, cell: Cell) -> float:
        """On the disk, of all replicates; full precision that is not tuned points to its checkpoint."""
        if cell == cell.baseline:
            return 0
        params = self.run.params(cell) if cell.is_patched else {}
        restored = params.get("tau", 0) if cell.is_patched and self.run.patch(cell).restores else 0
        bits = 32 if params.get("exported") is False else cell.bits
        return self.run.replicates(cell.model) * artefact_bytes(self.size(cell.model), bits, restored) / MB

    def answers_mb(self, cell: Cell) -> float:
        """On the disk, of all replicates: answers, twice (the store, the file), and verdicts."""
        known, every = coefficients().answers, self.run.replicates(cell.model)
        verdicts = sum(self.workload.of("judge", cell, judge).answers for judge in self.run.judges)
        answers = self.workload.of("generate", cell).answers
        return every * (2 * answers * known.bytes + verdicts * known.verdict_bytes) / MB
