"""A Hugging Face model card of one artefact, made from its record alone. All text of the run is escaped; no answers."""

from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from bitsafe.cells import Cell
from bitsafe.matrix.run import Run
from bitsafe.register.steps import Step
from bitsafe.report.findings import name_of
from bitsafe.report.text import NONE, in_markdown, interval, one_line, p_value, percent, points

TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ about }}

{% if warning %}> {{ warning }}

{% endif %}## Deployment checklist

| step | state | what shows it |
|---|---|---|
{% for line in checklist %}{{ line }}
{% endfor %}
## What was measured

Rates in % with their intervals ({{ confidence }} %), over scored answers; changes in points against full precision,
paired by prompt. Unreadable: unscored or degenerate. A harmful benchmark's rate is the attack success rate (ASR).

| benchmark | decoding | judge | metric | rate | n | unreadable | change | Holm p |
|---|---|---|---|---|---|---|---|---|
{% for line in numbers %}{{ line }}
{% endfor %}{% for line in missing %}
- not measured: {{ line }}{% endfor %}

## Who judged

{% for line in judges %}- {{ line }}
{% endfor %}
## Calibration data

{{ calibration }}

## Provenance

{% for line in provenance %}- {{ line }}
{% endfor %}
## Limits

- These numbers hold for the prompts, decoding and judges named here, and for the replicates at hand.
- A rate of zero is bounded by its interval, not shown to be zero.
- Owner: {{ owner }}. Review by: {{ review_by }}.
"""


def card_text(run: Run, cell: Cell, steps: list[Step], record: dict[str, Any]) -> str:
    """The card as Markdown with its metadata block."""
    by_name = {step.name: step for step in steps}
    own = by_name["patch_applied_and_retested" if cell.is_patched else "re_evaluation"].evidence
    rows, missing = own.get("numbers", []), own.get("missing", [])
    card = ModelCard.from_template(
        card_data(run, cell, rows),
        template_str=TEMPLATE,
        title=f"{in_markdown(cell.model)}: {in_markdown(name_of(cell))}",
        about=about(cell, record, by_name["artefact_recorded"]),
        warning=in_markdown(run.model(cell.model).warning, 2000),
        checklist=[checklist_line(step) for step in steps],
        confidence=f"{100 * run.config.score.confidence:g}",
        numbers=[number_line(row) for row in rows],
        missing=[in_markdown(one) for one in missing],
        judges=[judge_line(judge) for judge in record["judges"]] or ["Nobody: no verdicts lie in this cell's folder."],
        calibration=calibration_words(by_name["calibration_data_review"]),
        provenance=provenance_lines(by_name["artefact_recorded"]),
        owner=in_markdown(record["owner"]) or "not stated",
        review_by=in_markdown(record["review_by"]) or "not stated",
    )
    return str(card)


def card_data(run: Run, cell: Cell, rows: list[dict[str, Any]]) -> ModelCardData:
    model = run.model(cell.model)
    hub = next((source["hub"] for source in model.sources if "hub" in source), None)
    tags = ["bitsafe", "quantized", cell.method, f"{cell.bits}-bit", *([cell.stage] if cell.is_patched else [])]
    return ModelCardData(
        license=one_line(model.licence).lower(),
        base_model=one_line(hub) if hub else None,
        base_model_relation="quantized" if hub else None,
        pipeline_tag="text-generation",
        tags=[one_line(tag) for tag in tags],
        model_name=one_line(cell.slug),
        eval_results=[result_of(row) for row in rows],
    )


def result_of(row: dict[str, Any]) -> EvalResult:
    named = {key: one_line(row[key]) for key in ("benchmark", "decoding", "judge", "metric")}
    bounds = {key: row[key] for key in ("low", "high", "n", "unusable_share")}
    return EvalResult(
        task_type="text-generation",
        dataset_type=named["benchmark"],
        dataset_name=named["benchmark"],
        metric_type=named["metric"],
        metric_name=f"{named['metric']}, decoding {named['decoding']}, judge {named['judge']}",
        metric_value=row["value"],
        metric_args={"decoding": named["decoding"], "judge": named["judge"], **bounds},
    )


def about(cell: Cell, record: dict[str, Any], recorded: Step) -> str:
    bits = [one.get("effective_bits") for one in recorded.evidence["replicates"].values()]
    known = [value for value in bits if value is not None]
    said = f"{len(bits)} replicates" if len(bits) != 1 else "one artefact"
    size = f", {sum(known) / len(known):.2f} effective bits a quantized weight" if known else ""
    failed = f" **It failed**: {in_markdown(record['failed'])}." if record["failed"] else ""
    control = " **A control of an experiment, not a model to deploy.**" if record["control"] else ""
    params = ", ".join(f"{key} {value}" for key, value in record["params"].items())
    made = f"Quantized by {in_markdown(cell.method)}{size}; {said}. Parameters: {in_markdown(params, 2000) or NONE}."
    return made + control + failed


def checklist_line(step: Step) -> str:
    state = "done" if step.done else "**not done**"
    return f"| {step.name.replace('_', ' ')} | {state} | {in_markdown(step.reason) or shown_by(step)} |"


def shown_by(step: Step) -> str:
    """How many files and numbers show it."""
    files, rows = step.evidence.get("files", []), step.evidence.get("numbers", [])
    parts = [f"{len(files)} files hashed and as recorded"] if files else []
    parts += [f"{len(rows)} numbers"] if rows else []
    return ", ".join(parts) or in_markdown(step.evidence.get("label", "")) or NONE


def number_line(row: dict[str, Any]) -> str:
    change = row.get("total") or {}
    delta = points(change.get("delta")) if change.get("delta") is not None else NONE
    bounds = interval(change.get("delta_low"), change.get("delta_high"))
    cells = [*(in_markdown(row[key]) for key in ("benchmark", "decoding", "judge", "metric"))]
    cells += [f"{percent(row['value'])} {interval(row['low'], row['high'])}", str(row["n"])]
    cells += [percent(row["unusable_share"]), f"{delta} {bounds}".strip(), p_value(change.get("p_holm"))]
    return f"| {' | '.join(cells)} |"


def judge_line(judge: dict[str, Any]) -> str:
    row = judge["row"]
    what = f"{row['family']}, {row['module']} version {row['version']}" if row else judge["reason"]
    served = f", served by {', '.join(judge['models_served'])}" if judge.get("models_served") else ""
    return f"{in_markdown(judge['judge'])}: {judge['verdicts']} verdicts ({in_markdown(what)}{in_markdown(served)})"


def calibration_words(step: Step) -> str:
    evidence = step.evidence
    if evidence.get("label") == "no calibration data":
        return "None: the method took no data, and its manifest names none."
    data = evidence.get("data") or {}
    known = f"Set {in_markdown(data.get('name', 'unknown'))}, {data.get('rows', 'unknown')} rows, risk label: "
    known += f"{in_markdown(evidence.get('label') or 'not declared')}. {in_markdown(evidence.get('provenance') or '')}."
    return f"{known} {'' if step.done else f'Not reviewed: {in_markdown(step.reason)}.'}".strip()


def provenance_lines(step: Step) -> list[str]:
    lines = [
        f"`{link['sha256'] or 'no file'}` {in_markdown(link['file'])} ({link['state']})"
        for link in step.evidence["files"]
    ]
    for name, one in step.evidence["replicates"].items():
        made = one.get("provenance") or {}
        source = (one.get("source") or {}).get("weights_sha256", "unknown")
        libraries = ", ".join(f"{key} {value}" for key, value in (made.get("libraries") or {}).items())
        said = f"commit {made.get('commit', 'unknown')}, {libraries}; full-precision weights {source}"
        lines.append(f"{name}: {in_markdown(said, 1000)}")
    return lines
