"""make test-gpu, or python -m tests.gpu: the tests of this folder, or in a line why there are none to run."""

import os
import sys

from tests.gpu.device import why_not


def main() -> int:
    if (reason := why_not()) and not os.environ.get("GPU_SMALL"):
        print(f"test-gpu: skipped: {reason}")
        return 0
    import pytest

    return pytest.main(["-rsP", "tests/gpu"])


if __name__ == "__main__":
    sys.exit(main())
