"""The examples of docs/testing.md that are tests, run by pytest with the plugin, as a stranger's project would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text("utf-8")


def test_the_examples_pass(tmp_path: Path) -> None:
    blocks = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def test_" in block]
    assert len(blocks) == 4
    for number, block in enumerate(blocks):
        (tmp_path / f"test_{number}.py").write_text(block)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        f"--rootdir={tmp_path}",
    ]
    done = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert "6 passed" in done.stdout, done.stdout + done.stderr


def test_every_fixture_is_told() -> None:
    plugin = (Path(__file__).parents[2] / "kvserver" / "pytest_plugin.py").read_text("utf-8")
    fixtures = re.findall(r"@pytest\.fixture.*\ndef (\w+)", plugin)
    assert {name for name in fixtures if name[0] != "_"} == set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
