"""A server on a data directory, and what it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

import kvserver

Contents = dict[int, dict[bytes, tuple[bytes, int | None]]]
"""Database number to keys to values and deadlines."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def contents(server: kvserver.Server) -> Contents:
    """Everything that is alive."""
    keyspace = server._state.keyspace
    with keyspace.lock:
        now = keyspace.clock()
        return {
            database.index: alive
            for database in keyspace.databases
            if (
                alive := {
                    key: (bytes(value), database.deadlines.get(key))
                    for key, value in database.values.items()
                    if database.deadlines.get(key, now + 1) > now
                }
            )
        }
