"""page: report.html of 66 variants × 1,067 prompts in a real Chromium, against what a reader is promised.

First paint within 3 s, a filter answered within 200 ms. Made-up answers (tests/bench/synthetic.py); needs
`make env NAME=browser` and a Chromium.
"""

import sys
import tempfile
import time
from pathlib import Path

from bitsafe.report.html import write_report

HELPERS = Path(__file__).parents[1] / "browser"
PROMISED = {"first_paint": 3000, "filter": 200, "search": 200}  # milliseconds


def run() -> list[dict]:
    sys.path.insert(0, str(HELPERS))
    from chromium import browser, missing
    from measure import measured
    from tests.bench.synthetic import PROMPTS, VARIANTS, synthetic_run

    if reason := missing():
        raise SystemExit(f"bench: page: {reason}")
    with tempfile.TemporaryDirectory() as folder, browser() as chrome:
        made = synthetic_run(Path(folder))
        began = time.monotonic()
        write_report(made)
        seconds = time.monotonic() - began
        file = made.folder / "report.html"
        found = measured(chrome, file)
        about = {"variants": VARIANTS, "prompts": PROMPTS, "megabytes": file.stat().st_size / 1e6}
    about |= {
        "written_seconds": seconds,
        "ready_ms": found["ready"]["worst"],
        "first_search_ms": found["first_search"]["worst"],
    }
    about |= {"chromium": chrome.version}
    return [row(name, found[name]) | about for name in PROMISED]


def row(name: str, times: dict) -> dict:
    """The worst of all repeats, against the promise."""
    ours, peer = times["worst"], PROMISED[name]
    return {
        "name": f"page_{name}",
        "ours": ours,
        "peer": peer,
        "peer_name": "promised at most",
        "ratio": ours / peer,
        "unit": "ms",
        "n": times["n"],
        "spread": None,
        "median": times["median"],
    }
