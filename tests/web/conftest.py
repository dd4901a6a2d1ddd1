"""A server with its HTTP port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from web.asking import Web

import kvserver

Serve = Callable[..., Web]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(**settings)``: the HTTP port of a server. Afterwards no thread may be left."""
    before = set(threading.enumerate())
    started: list[kvserver.Server] = []

    def start(**settings: Any) -> Web:
        server = kvserver.Server(port=0, metrics_port=0, **settings)
        started.append(server)
        return Web(server.start())

    yield start
    stopped = [server.stop() for server in started]  # each, also when one has failed
    assert all(stopped)
    assert set(threading.enumerate()) <= before


@pytest.fixture
def web(serve: Serve) -> Web:
    return serve()
