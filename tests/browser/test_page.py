"""report.html in a real browser: it draws, filters, says nothing on the console and asks for nothing."""

import pytest
from chromium import DESKTOP, PHONE, opened

FLIPS, SEARCH, FOUND = "#filter-flips", "#filter-search", "#found"


def counts(desk) -> list[int]:
    """What the line below the filters says: found, and of how many."""
    found, total = desk.page.inner_text(FOUND).split(" transcript")[0].split(" of ")
    return [int(number.replace(",", "")) for number in (found, total)]


def rows(desk) -> list[str]:
    return desk.page.locator("#transcript-list [role=option]").all_inner_texts()


def test_it_is_quiet_and_asks_for_nothing(desk, report):
    desk.page.mouse.wheel(0, 20_000)
    desk.page.wait_for_timeout(200)
    assert desk.errors == [] and desk.console == []
    assert desk.requests == [report.resolve().as_uri()]


def test_it_works_without_a_network(chrome, report):
    offline = opened(chrome, report, offline=True)
    assert offline.errors == [] and counts(offline)[1] > 0


def test_the_policy_stops_what_is_not_ours(desk):
    """Inline scripts, handlers, requests and markup made from strings: each is refused by the page's own policy."""
    tried = """() => new Promise((done) => {
      const seen = [];
      document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
      const script = document.createElement("script");
      script.append("window.hacked = 1");
      try { document.body.append(script); } catch (error) { seen.push("script"); }
      const image = document.createElement("img");
      image.src = "https://example.org/x.png";
      document.body.append(image);
      fetch("https://example.org/").catch(() => {});
      try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); } catch (error) { seen.push("markup"); }
      setTimeout(() => done([seen, window.hacked === undefined]), 300);
    })"""
    seen, safe = desk.page.evaluate(tried)
    assert safe and "markup" in seen
    assert {"img-src", "connect-src"} <= set(seen)


@pytest.mark.parametrize("chart", ["tradeoff", "bits", "matrix", "contrasts"])
def test_charts_are_drawn(desk, chart):
    place = desk.page.locator(f"#chart-{chart}")
    assert place.locator("svg[role=img]").count() >= 1
    box = place.locator("svg[role=img]").first.bounding_box()
    assert box["width"] > 200 and box["height"] > 40
    assert place.locator("svg[role=img] path, svg[role=img] rect").count() > 3


def test_the_tradeoff_shows_every_measured_cell_and_an_arrow_a_patch(desk):
    data = desk.page.evaluate("JSON.parse(document.getElementById('chart-data').textContent).panels[0]")
    cells = [cell for cell in data["cells"] if cell["asr"] is not None and cell["utility"]]
    chart = desk.page.locator("#chart-tradeoff svg[aria-label*='against utility']")
    assert chart.locator("g[data-mark=dot] path, g[data-mark=dot] circle").count() == len(cells)
    arrows = [cell for cell in cells if cell["patched"]]
    assert len(arrows) == 3 and chart.locator("g[data-mark=arrow] path").count() == len(arrows)


def test_the_matrix_shows_each_cell_and_says_what_is_missing(desk):
    chart = desk.page.locator("#chart-matrix svg[role=img]")
    data = desk.page.evaluate("JSON.parse(document.getElementById('chart-data').textContent).panels[0]")
    assert chart.locator("g[data-mark=cell] rect").count() == len(data["cells"])
    assert "·" in chart.text_content() and "not in this run" in desk.page.inner_text("#chart-matrix")


def test_another_judge_redraws_the_charts(desk):
    before = desk.page.locator("#chart-matrix svg[role=img]").text_content()
    desk.page.select_option("#view", index=1)
    assert "judge keyword" in desk.page.inner_text("#charted") and desk.errors == []
    assert desk.page.locator("#chart-matrix svg[role=img]").text_content()[:40] == before[:40]


def test_flips_and_verdicts_filter_the_list(desk):
    everything, total = counts(desk)
    assert everything == total > 100
    desk.page.check(FLIPS)
    flips, _ = counts(desk)
    assert 0 < flips < total
    for row in rows(desk)[:10]:
        said = [line.strip() for line in row.split("→")]
        assert len({part.split("\n")[-1].strip() for part in said}) > 1, row
    desk.page.select_option("#filter-verdict", "harmful")
    harmful, _ = counts(desk)
    assert 0 < harmful < flips
    assert all("harmful" in row for row in rows(desk))
    desk.page.click("#filters button[type=reset]")
    desk.page.wait_for_function("document.getElementById('filter-flips').checked === false")
    desk.page.wait_for_timeout(100)
    assert counts(desk) == [total, total]


def test_the_list_agrees_with_the_files(desk, run):
    """Naive count of harmful answers of one cell by the leading judge, from the verdict files."""
    from bitsafe.cells import Cell
    from bitsafe.files import read_jsonl

    folder = run.at(Cell("toy", "ste", 4, "harmful"))
    said = [
        row for file in folder.glob("rep*/verdicts/reference/toy_forbidden.default.jsonl") for row in read_jsonl(file)
    ]
    desk.page.select_option("#filter-chain", label="ste 4-bit, risk III")
    desk.page.select_option("#filter-benchmark", "toy_forbidden")
    assert counts(desk)[0] == len(said)
    desk.page.select_option("#filter-verdict", "harmful")
    assert counts(desk)[0] == sum(row["verdict"] == "harmful" for row in said)


def test_search_finds_words_of_prompts_and_of_answers(desk):
    total = counts(desk)[1]
    prompts = searched(desk, "BARGAN VAULT")
    assert 0 < prompts < total
    answers = searched(desk, "ruby stud")
    assert 0 < answers < total and answers != prompts
    assert searched(desk, "no such words") == 0
    desk.page.wait_for_selector("#transcript:has-text('No transcript meets')")


def searched(desk, words):
    """How many transcripts hold the words, when the search is through."""
    desk.page.fill(SEARCH, words)
    desk.page.wait_for_selector("#transcript-list:not([aria-busy])", state="attached")
    return counts(desk)[0]


def test_answers_stand_side_by_side_and_harmful_ones_are_folded(desk):
    desk.page.select_option("#filter-chain", label="ste 4-bit, risk III, after qresafe")
    desk.page.select_option("#filter-benchmark", "toy_forbidden")
    desk.page.check(FLIPS)
    desk.page.wait_for_selector("#transcript .arm")
    arms = desk.page.locator("#transcript .arm h4").all_inner_texts()
    assert arms == ["full precision", "ste 4-bit, risk III", "after qresafe"]
    tops = [box["y"] for arm in desk.page.locator("#transcript .arm").all() if (box := arm.bounding_box())]
    assert len(set(tops)) == 1
    folded = desk.page.locator("#transcript .arm details")
    assert folded.count() >= 1 and folded.first.get_attribute("open") is None
    assert "Harmful answer, folded" in folded.first.inner_text()
    assert not desk.page.get_by_text("Turn the brass dial").first.is_visible()
    folded.first.locator("summary").press("Enter")
    assert desk.page.get_by_text("Turn the brass dial").first.is_visible()


def test_the_keyboard_reaches_and_moves_through_the_list(desk):
    desk.page.focus(SEARCH)
    for _ in range(12):
        desk.page.keyboard.press("Tab")
        if desk.page.evaluate("document.activeElement.id") == "transcript-list":
            break
    assert desk.page.evaluate("document.activeElement.id") == "transcript-list"
    desk.page.keyboard.press("ArrowDown")
    active = "document.getElementById('transcript-list').getAttribute('aria-activedescendant')"
    assert desk.page.evaluate(active) == "transcript-1"
    desk.page.keyboard.press("End")
    total = counts(desk)[1]
    assert desk.page.evaluate(active) == f"transcript-{total - 1}"
    assert desk.page.locator(f"#transcript-{total - 1}").is_visible()
    desk.page.keyboard.press("Home")
    assert desk.page.evaluate(active) == "transcript-0"
    assert desk.page.locator("#transcript-list [role=option]").count() < 60  # only what is in sight


@pytest.mark.parametrize(("size", "theme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")])
def test_axe_finds_nothing_serious(chrome, report, size, theme):
    """Beside the page's policy, which would not let axe-core in."""
    from axe_playwright_python.sync_playwright import Axe

    found = opened(chrome, report, size, color_scheme=theme, bypass_csp=True)
    found.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    violations = Axe().run(found.page).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"][:200]) for v in violations if v["impact"] in ("serious", "critical")]
    assert serious == []


@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_it_fits_its_window_and_is_kept_as_pictures(chrome, report, shots, name, size):
    found = opened(chrome, report, size)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    for section in ("verdict", "charts", "contrasts", "transcripts"):
        found.page.evaluate(f"document.getElementById('{section}').scrollIntoView()")
        found.page.wait_for_timeout(100)
        file = shots / f"{name}_{section}.png"
        found.page.screenshot(path=file)
        assert file.stat().st_size > 10_000
    assert found.errors == []


def test_without_scripts_the_words_and_tables_are_there(chrome, report):
    context = chrome.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.resolve().as_uri())
    assert "ASR rose in" in page.inner_text("#verdict") and page.locator("#scores table").first.is_visible()
    assert "does not run" in page.inner_text("#charts")
    context.close()
