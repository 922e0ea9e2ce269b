"""The CSV files of a run: their columns (design §4, then extra ones), written so that no text runs as a formula."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bitsafe.files import write_text

CELL = "run model method bits risk stage"
MEASURED = f"{CELL} benchmark decoding judge"
SCORES = (
    f"{MEASURED} n n_harmful n_safe n_ambiguous n_unscored n_degenerate n_degenerate_harmful asr asr_low asr_high "
    "asr_min asr_max asr_coherent asr_corrected safe_share score_mean score_low score_high baseline_asr delta p p_holm "
    "mde effective_bits"
)
SCORES_EXTRA = (
    "safe_low safe_high baseline_cell delta_low delta_high holm_m psi0 mde_independent mde_reason n_clusters "
    "unusable_share resolvable limits_hold asr_corrected_low asr_corrected_high asr_corrected_reason setting reason"
)
TAKEN = "patch_seconds cpu_seconds pair_seconds flops peak_memory_mb added_memory_mb peak_gpu_mb"
COST = f"{TAKEN} n_preferences codes_changed"  # of a patch; states.cost says what each is
FLIPS = "flip_rate flip_low flip_high"
CONSTANT = "constant_share constant_letter constant_value equals_constant"
COLUMNS = {
    "cells": f"{CELL} replicates state reason effective_bits stored_bits bytes seconds {COST} params",
    "scores": f"{SCORES} {SCORES_EXTRA}",
    "scores_by_replicate": f"{SCORES} replicate {SCORES_EXTRA}",
    "scores_by_category": f"{SCORES} category {SCORES_EXTRA}",
    "utility": (
        "model method bits risk stage benchmark decoding judge metric n value low high baseline_cell baseline_value "
        "delta p p_holm mde "  # + extra
        "run n_dropped value_min value_max delta_low delta_high holm_m psi0 mde_independent mde_reason n_clusters "
        f"unusable_share effective_bits {FLIPS} {CONSTANT} reason"
    ),
    "utility_by_category": (
        f"{MEASURED} metric category n n_dropped value low high value_min value_max n_clusters unusable_share "
        "baseline_cell baseline_value delta effective_bits reason"
    ),
    "comparisons": (
        f"{MEASURED} metric contrast baseline_cell n_pairs n_dropped n_at_risk n_flipped n_up n_down changed_share "
        "value baseline_value delta delta_low delta_high delta_best delta_worst n_clusters n_effective test p p_holm "
        f"holm_m psi0 mde mde_independent mde_reason {FLIPS} reason"
    ),
    "any_of_k": (
        f"{MEASURED} k n_settings n asr asr_low asr_high baseline_cell baseline_asr delta delta_low delta_high p floor "
        "floor_reason reason"
    ),
    "agreement": (
        "run model benchmark decoding outcome judge_a judge_b n n_dropped both only_a only_b neither agreement kappa "
        "kappa_low kappa_high n_clusters reason"
    ),
    "distance": (
        f"{CELL} prompts benchmark decoding n_answers n_tokens kl kl_low kl_high top1_agreement top1_low top1_high "
        "perplexity perplexity_full beyond reason"
    ),
    "judge_quality": (
        "run model benchmark decoding outcome judge source n_labels hits misses false_alarms correct_rejections "
        "sensitivity sensitivity_low sensitivity_high specificity specificity_low specificity_high reason "
        "n_judges n_answers alpha alpha_low alpha_high"
    ),
}


def write_table(folder: Path, name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write `folder`/`name`.csv whole. A column the table lacks is a KeyError; a missing or nan value is blank."""
    columns = COLUMNS[name].split()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        if unknown := row.keys() - set(columns):
            raise KeyError(f"{name}.csv has no column {sorted(unknown)[0]!r}")
        table.writerow([shown(row.get(column)) for column in columns])
    write_text(folder / f"{name}.csv", text.getvalue())


def shown(value: Any) -> str:
    """One CSV cell: ten digits of a number, JSON for what has parts, and text that a spreadsheet will not run."""
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    return harmless(value) if isinstance(value, str) else str(value)


def harmless(text: str) -> str:
    """A leading quote before what a spreadsheet takes for a formula (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
