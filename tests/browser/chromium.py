"""A real headless Chromium, driven by playwright from the environment `browser`, with nothing hidden from the test."""

import os
import shutil
import site
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENVIRONMENT = Path(".envs/browser")
NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = (1440, 1000), (390, 844)


def missing() -> str:
    """Why no browser can be had here; "" if one can."""
    if chromium() is None:
        return f"no Chromium here (looked for {', '.join(NAMES)}; CHROMIUM=… names one): apt-get install chromium"
    if not packages():
        return f"{ENVIRONMENT} is missing or of another Python: make env NAME=browser"
    return ""


def chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


def packages() -> bool:
    """Put the environment's packages behind those of this one; whether they are there."""
    found = ENVIRONMENT / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    if (found / "playwright").is_dir():
        site.addsitedir(str(found.resolve()))
    return (found / "playwright").is_dir()


@dataclass
class Opened:
    """A page in the browser, and everything that it said or asked for."""

    page: Any
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))

    def open(self, file: Path) -> "Opened":
        self.page.goto(file.resolve().as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)
        return self


@contextmanager
def browser() -> Iterator[Any]:
    """Without a network of its own to use; sandboxed unless the user is root, whom Chromium refuses to sandbox."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium(), args=flags)
        try:
            yield started
        finally:
            started.close()


def opened(started: Any, file: Path, size: tuple[int, int] = DESKTOP, **context: Any) -> Opened:
    """The page of `file`, after its charts are drawn and its transcripts are there."""
    width, height = size
    where = started.new_context(viewport={"width": width, "height": height}, **context)
    found = Opened(where.new_page())
    found.watch()
    return found.open(file)
