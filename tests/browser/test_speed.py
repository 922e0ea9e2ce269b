"""The page of 66 variants × 1,067 prompts: painted within 3 seconds, a filter or a search answered within 200 ms.

The medians are held to that, for on a machine that is busy with other work the worst tells of that work; searches from
the second on: the first may come before the answers are unpacked, which the page does while it idles.
"""

import time

from measure import measured
from tests.bench.synthetic import PROMPTS, VARIANTS, synthetic_run

from bitsafe.report.html import write_report

FIRST_PAINT, ANSWERED = 3000, 200  # milliseconds


def test_a_large_run_is_quick(chrome, tmp_path):
    run = synthetic_run(tmp_path)
    began = time.monotonic()
    write_report(run)
    written = time.monotonic() - began
    file = run.folder / "report.html"
    found = measured(chrome, file, repeats=1)
    print(
        f"{VARIANTS} × {PROMPTS}: {file.stat().st_size / 1e6:.1f} MB, written in {written:.1f} s; milliseconds: {found}"
    )
    assert found["first_paint"]["worst"] < FIRST_PAINT
    assert found["filter"]["median"] < ANSWERED
    assert found["search"]["median"] < ANSWERED
