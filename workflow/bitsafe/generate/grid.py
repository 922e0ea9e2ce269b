"""Decoding grids: many settings of one decoding row, each with temperature, top-p and top-k explicit.

One knob at a time takes the values of the row's `grid`; the other two rest at the row's own values. A grid stands in
the tables as one decoding with one answers file; in scores.csv it is `<name>_mean`, `<name>_worst`, `<name>_any` and
`<name>_<setting>` (`grid49_top_p_0.7`).
"""

from collections.abc import Mapping
from typing import Any


def settings_of(decoding: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The decoding row of each setting by its name, in the order of the grid; {} for a decoding without a grid.

    A setting's name is part of its row and so of its random numbers: two settings of one distribution (temperature 1
    and top-p 1) are drawn apart.
    """
    grid = decoding.get("grid") or {}
    rest = {key: value for key, value in decoding.items() if key != "grid"}
    return {
        name: rest | {knob: value, "setting": name}
        for knob, values in grid.items()
        for name, value in ((f"{knob}_{value:g}", value) for value in values)
    }
