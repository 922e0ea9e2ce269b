"""One browser and one made-up run for all tests of the page; without Chromium they are skipped, and say why."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))  # report_run: the made-up run of the unit tests
sys.path.insert(0, str(Path(__file__).parent))

from chromium import browser, missing, opened
from report_run import small_run

from bitsafe.report.html import write_report

SHOTS = Path("results/browser")


def pytest_collection_modifyitems(items):
    """The hook sees every test of the session: only those of this folder need a browser."""
    if reason := missing():
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def chrome():
    with browser() as started:
        yield started


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A small run with one failed cell."""
    made = small_run(tmp_path_factory.mktemp("results"), prompts=60)
    return made


@pytest.fixture(scope="session")
def report(run):
    write_report(run)
    return run.folder / "report.html"


@pytest.fixture
def desk(chrome, report):
    """The page at the width of a desk, fresh."""
    found = opened(chrome, report)
    yield found
    found.page.context.close()


@pytest.fixture(scope="session")
def shots():
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS
