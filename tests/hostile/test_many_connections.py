"""Many connections at once: they come, they stay, they leave in the same moment. Ten thousand of them when asked."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile.conftest import Besiege
from hostile.siege import PATIENCE
from support import need

SCRIPT = Path(__file__).parents[2] / "scripts" / "connections.py"


@pytest.fixture
def many_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4000, hard), hard))


def test_all_leave_at_once(besiege: Besiege, many_descriptors: None) -> None:
    """Their threads all want the interpreter at once. Whoever stays is served all the same, and soon."""
    with besiege() as siege:
        crowd = [siege.arena.connect() for _ in range(1500)]
        for sock in crowd:
            sock.sendall(b"PING\r\n")
        for sock in crowd:
            assert sock.recv(100) == b"+PONG\r\n"
        for sock in crowd:
            sock.close()
        began = time.monotonic()
        siege.bystander.is_served()
        assert time.monotonic() - began < PATIENCE / 3


def run(*options: str, patience: int) -> str:
    need("redis-server")
    need("redis-benchmark")
    done = subprocess.run(
        [sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=patience, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_comparison_with_redis() -> None:
    told = run("--connections", "300", "--rounds", "1", "--requests", "3000", patience=100)
    assert "| connections accepted and answered a second |" in told
    assert "| worst, ms, among the trickling |" in told


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand() -> None:
    assert "10,000 connections" in run("--rounds", "1", patience=500)
