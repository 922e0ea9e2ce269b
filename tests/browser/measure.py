"""First paint and the time a filter takes, in a real browser, as a reader feels them."""

import statistics
from pathlib import Path
from typing import Any

from chromium import opened

PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
CHANGE = """([id, value]) => new Promise((done) => {
  const control = document.getElementById(id), began = performance.now();
  if (control.type === "checkbox") control.checked = value; else control.value = value;
  control.dispatchEvent(new Event("change"));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
})"""
SEARCH = """(words) => new Promise((done) => {
  const list = document.getElementById("transcript-list"), input = document.getElementById("filter-search");
  const began = performance.now();
  input.value = words;
  input.dispatchEvent(new Event("input"));
  const wait = () => {
    if (list.hasAttribute("aria-busy")) return setTimeout(wait, 4);
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
  };
  wait();
})"""
FILTERS = [
    *(("filter-flips", True), ("filter-verdict", "harmful"), ("filter-verdict", "refused"), ("filter-chain", "7")),
    *(
        ("filter-chain", ""),
        ("filter-judge", "0"),
        ("filter-verdict", ""),
        ("filter-flips", False),
        ("filter-judge", ""),
    ),
]


def measured(chrome: Any, file: Path, repeats: int = 3) -> dict[str, Any]:
    """Milliseconds: first paint, until everything is there, each filter (worst and median), and searches."""
    found: dict[str, list[float]] = {"first_paint": [], "ready": [], "filter": [], "first_search": [], "search": []}
    for _ in range(repeats):
        desk = opened(chrome, file)
        found["ready"].append(desk.page.evaluate("performance.now()"))
        found["first_paint"].append(desk.page.evaluate(PAINTED))
        found["filter"] += [desk.page.evaluate(CHANGE, [name, value]) for name, value in FILTERS]
        found["first_search"].append(desk.page.evaluate(SEARCH, "vault"))  # before all is unpacked
        found["search"] += [desk.page.evaluate(SEARCH, words) for words in ("dial the", "bardan", "zzzz")]
        assert desk.errors == [] and desk.console == []
        desk.page.context.close()
    return {
        name: {"median": statistics.median(times), "worst": max(times), "n": len(times)}
        for name, times in found.items()
    }
