"""Whatever is imported first: none of the circles that type hints make is one at run time, nor where it is compiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kvserver

FOLDER = Path(kvserver.__file__).parent
NAMES = sorted(
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    if not path.name.startswith("__") and path.name != "pytest_plugin.py"
)
_EACH = """
import importlib, os, sys
import asyncio, decimal, inspect, logging, ssl, structlog  # once for all
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(*failed)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_every_module_can_be_the_first() -> None:
    done = subprocess.run([sys.executable, "-c", _EACH, *NAMES], capture_output=True, text=True, check=True)
    assert len(NAMES) > 80
    assert done.stdout.split() == []
