"""Servers that speak TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from authorities import Identity

import kvserver

TLSServer = Callable[..., AbstractContextManager[kvserver.Server]]


@pytest.fixture
def tls_server(identity: Identity) -> TLSServer:
    """``with tls_server(**settings) as server``: one that speaks TLS only."""

    @contextmanager
    def make(**settings: Any) -> Iterator[kvserver.Server]:
        chosen = {"port": None, "tls_port": 0, "tls_cert": identity.cert, "tls_key": identity.key} | settings
        with kvserver.Server(**chosen) as server:
            yield server

    return make
