"""The scripts of the page, and the policy that lets these run and nothing else.

Each stands in the page as it lies in `assets`, and the page's Content-Security-Policy names its hash: whatever else
might get into the page would not run. The charting library is not ours; its files are checked before they are used.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path

from bitsafe.errors import UserError
from bitsafe.files import sha256_file

ASSETS = Path(__file__).parents[1] / "assets"
VENDOR = {  # file in assets/vendor: its sha256, as in README.md there
    "d3.min.js": "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1",
    "plot.umd.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
}
OWN = ("unpack", "text", "charts", "contrasts", "figures", "rows", "list", "transcript", "explorer", "start")


@cache
def scripts() -> list[str]:
    """The library, and our own files as one strict function; in the order in which they run."""
    return [*(_vendored(name, sha256) for name, sha256 in VENDOR.items()), _own()]


def _vendored(name: str, sha256: str) -> str:
    file = ASSETS / "vendor" / name
    if sha256_file(file) != sha256:
        raise UserError(f"{file}: its sha256 is not the recorded one: restore the file from the repository")
    return file.read_text(encoding="utf-8")


def _own() -> str:
    parts = [(ASSETS / "js" / f"{name}.js").read_text(encoding="utf-8") for name in OWN]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def policy() -> str:
    """The page's Content-Security-Policy: no request to anywhere, no script but these, no markup made from strings.

    Styles may be inline, for the charts are drawn with them.
    """
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts())
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
