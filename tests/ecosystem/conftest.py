"""A server with its defaults for each test of a library, and the rule for libraries that are not installed.

Elsewhere a library that is not there is left out, and test_matrix.py skips its row, saying what to install. In CI that
row fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from matrix import MATRIX, is_installed

import kvserver

collect_ignore = [row.test for row in MATRIX if not is_installed(row)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("ecosystem")
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # what a library warns of is for its own authors


@pytest.fixture
def server() -> Iterator[kvserver.Server]:
    """As a user starts it. No count of threads: some libraries keep theirs."""
    with kvserver.Server(port=0) as started:
        yield started


@pytest.fixture
def url(server: kvserver.Server) -> str:
    return f"{server.url}/0"
