"""Helpers that tests import: programs they drive, and what a process has open."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def need(program: str) -> str:
    """The path of a program a test drives. Elsewhere the test skips without it; in CI that would hide a gap."""
    path = shutil.which(program)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not installed; .ci/run should have done that")
        pytest.skip(f"{program} is not installed")
    return path


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
