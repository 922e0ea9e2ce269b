"""Rows of results/bench/gpu.json from the points of a method: the whole job by a linear rule, and memory beside what a
cluster is asked for.

The rule: seconds = a + b · layers + c · layers · steps, through as many points as there are: three give all terms, two
give a and b, one gives b alone. It is solved, not fitted, so a bad point shows. Only what was measured at full depth is
not scaled. A row of memory names the peaks as they were measured beside that of the whole model.
"""

from typing import Any

import numpy as np
from tests.gpu.points import estimate, full_steps
from tests.gpu.seven import BITS, Shape

Row = dict[str, Any]
NEAR = 0.2  # how far an estimate of memory may be off, as a share of the peak
PROFILE = "the cluster profile's estimate"
TERMS = {1: "b · layers", 2: "a + b · layers", 3: "a + b · layers + c · layers · steps"}


def rows_of(name: str, points: list[Row], shape: Shape) -> list[Row]:
    """Of one method: seconds first, then memory of the card and of the machine."""
    row = {"name": "gpu", "method": name, "model": f"random Llama, hidden {shape.hidden}", "n": len(points)}
    row |= {"spread": None} | ({} if name == "generation" else {"bits": BITS})
    first = against_generate(points[0], shape) if name == "generation" else whole_job(name, points, shape)
    return [
        row | first,
        *(row | found for found in memory(name, points, shape)),
    ]


def against_generate(point: Row, shape: Shape) -> Row:
    peer, tokens = point["peer"], shape.prompts * shape.new
    mine, theirs = (side["said"]["tokens"] / side["seconds"] for side in (point, peer))
    found = {"ours": mine, "peer": theirs, "peer_name": "transformers generate in input order", "ratio": mine / theirs}
    found |= {"unit": "tokens/s", "n": shape.prompts, "layers": point["layers"], "tokens": tokens, "batch": shape.batch}
    return found | {"points": [point]}


def whole_job(name: str, points: list[Row], shape: Shape) -> Row:
    """Seconds of the whole model and all steps by the rule, beside the formulas' (an A100 in the shipped profile)."""
    steps = full_steps(name)
    seconds, peer = scaled(points, "seconds", shape.layers, steps), estimate(name, shape, shape.layers, steps)
    found = {"ours": seconds, "peer": peer["seconds"], "peer_name": PROFILE, "ratio": seconds / peer["seconds"]}
    found |= {"unit": "s", "layers": shape.layers, "steps": steps, "scaled": True, "rule": TERMS[len(points)]}
    measured = max(point["steps"] for point in points)
    if steps > measured and len(points) < 3:
        found["left_out"] = f"{steps - measured} of {steps} steps"
    return found | {"points": points}


def scaled(points: list[Row], key: str, layers: int, steps: int) -> float:
    """`key` at this depth and number of steps, by the rule above."""
    terms = np.array([_terms(point["layers"], point["steps"], len(points)) for point in points], dtype=float)
    solved = np.linalg.solve(terms, np.array([point[key] for point in points], dtype=float))
    return float(solved @ _terms(layers, steps, len(points)))


def _terms(layers: int, steps: int, count: int) -> list[float]:
    return {1: [layers], 2: [1, layers], 3: [1, layers, layers * steps]}[count]


def memory(name: str, points: list[Row], shape: Shape) -> list[Row]:
    """Peak and estimate of the whole model, on the card and on the machine, and whether the two goals are met.

    The peak of the whole model is a + b · layers through the first two depths; of one depth alone, what is told is that
    of so few layers.
    """
    depths = points[:2]
    layers = shape.layers if len(depths) == 2 else depths[0]["layers"]
    whole, found = estimate(name, shape, layers, full_steps(name)), []
    for what, key in (("card", "gpu_mb"), ("machine", "host_mb")):
        if any(point[key] is None for point in depths):
            continue
        peak = scaled(depths, key, layers, 0) if len(depths) == 2 else depths[0][key]
        found.append({"of": f"peak memory of the {what}", "layers": layers, "unit": "MB"})
        found[-1] |= {"ours": peak, "peer": whole[key], "peer_name": PROFILE, "ratio": peak / whole[key]}
        found[-1] |= {"asked": whole[f"asked_{key}"], "gpus": whole["gpus"], "n": len(depths)}
        found[-1] |= {"within_20_percent": abs(whole[key] / peak - 1) <= NEAR, "enough": peak <= whole[f"asked_{key}"]}
        found[-1] |= {"rule": TERMS[2]} if len(depths) == 2 else {}
        found[-1]["measured"] = [_beside(point, key) for point in depths]
    return found


def _beside(point: Row, key: str) -> Row:
    """A peak as it was measured, with the estimate at that depth."""
    found = {"layers": point["layers"], "peak": point[key], "estimate": point["estimate"][key]}
    return found | ({"reserved": point["reserved_mb"]} if key == "gpu_mb" else {})


def failed(name: str, reason: str) -> Row:
    """A row of a method that came to nothing, or stopped on the way, and why."""
    blank = dict.fromkeys(("ours", "peer", "peer_name", "ratio", "unit", "spread"))
    return {"name": "gpu", "method": name, **blank, "n": 0, "failed": reason}


def line(row: Row) -> str:
    """What is printed of a row."""
    if "failed" in row:
        return f"{row['method']}: FAILED: {row['failed']}"
    about = f"{row['method']}{', ' + row['of'] if 'of' in row else ''}, {row['layers']} layers"
    about += f" ({row['rule']}, {row['n']} points)" if "rule" in row else ""
    figures = (
        f"{row['ours']:.4g} {row['unit']} against {row['peer']:.4g} ({row['peer_name']}), ratio {row['ratio']:.2f}"
    )
    goals = {"within_20_percent": "within 20 %", "enough": "below what is asked for"}
    met = [("" if row[key] else "NOT ") + words for key, words in goals.items() if key in row]
    return ", ".join([f"{about}: {figures}", *met])
