"""A checkout of one's own, to run something else in than what the repository has."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copied_to(folder: Path, *below: str) -> Path:
    """Copy what git tracks or would track (below these paths alone) over what is in `folder`, which stays."""
    listed = ["git", "ls-files", "-co", "--exclude-standard", "--", *below]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder
