"""Raw connections to a server whose default user has a password or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from conformance.oracle import Wire

import kvserver

Connect = Callable[..., Wire]


@pytest.fixture
def connect(server: kvserver.Server) -> Iterator[Connect]:
    """``connect(*words)``: a connection on which a command has been answered with OK."""
    with ExitStack() as stack:

        def connect(*words: bytes | str) -> Wire:
            wire = stack.enter_context(Wire(server.port))
            if words:
                assert wire.ask(*words) == b"+OK\r\n"
            return wire

        yield connect
