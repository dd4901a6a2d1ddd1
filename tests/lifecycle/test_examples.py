"""The suites of tests/examples on the pytest plugin, each run as its own project would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SUITES = {"django_cache": ("django", 37), "rate_limiter": ("redis", 28), "session_store": ("flask", 25)}


@pytest.mark.parametrize("suite", SUITES)
def test_the_suite_passes(suite: str) -> None:
    needed, count = SUITES[suite]
    pytest.importorskip(needed)
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={EXAMPLES}",
    ]  # fmt: skip
    done = subprocess.run([*command, str(EXAMPLES / suite)], capture_output=True, text=True, timeout=100, check=False)
    found = re.search(r"^(\d+) passed(?:, \d+ warnings?)? in", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout + done.stderr
    assert int(found[1]) == count


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(SUITES)
