"""One connection to kvserver and one to Valkey, for a whole file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance.oracle import Pair, Wire

import kvserver


@pytest.fixture(scope="module")
def pair(valkey_port: int) -> Iterator[Pair]:
    with kvserver.Server(port=0) as server, Wire(server.port) as ours, Wire(valkey_port) as theirs:
        yield Pair(ours, theirs)
