"""A server under attack: somebody else is served all the while, and afterwards everything is as it was before."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pytest
from hostile.siege import PATIENCE, Arena, Bystander, Siege, read_all, server_threads, settled_memory
from support import open_descriptors

import kvserver

_NEAR = 48 * 1024**2
"""Bytes that memory may have grown by: what the allocator keeps for later."""

Besiege = Callable[..., AbstractContextManager[Siege]]


@pytest.fixture
def besiege(caplog: pytest.LogCaptureFixture) -> Besiege:
    """``with besiege(**settings) as siege``: a server, a bystander, and at the end a look at what is left.

    ``log_lines`` is how many lines the attack may log.
    """

    @contextmanager
    def make(log_lines: int = 1, **settings: Any) -> Iterator[Siege]:
        caplog.set_level("INFO", "kvserver")
        settings.setdefault("debug_command", "yes")
        with kvserver.Server(port=0, **settings) as server:
            arena = Arena(server)
            bystander = Bystander(arena)
            try:
                bystander.is_served()
                memory = settled_memory()  # first: it collects the garbage of earlier tests, sockets among it
                threads, descriptors = server_threads(), open_descriptors()
                caplog.clear()
                yield Siege(arena, bystander, lambda: [record.getMessage() for record in caplog.records])
                bystander.is_served()
                _wait_for_all_accepted(arena)
                for thread in server_threads() - threads:
                    thread.join(PATIENCE)
                assert server_threads() == threads
                assert open_descriptors() <= descriptors  # fewer, if something of an earlier test went only now
                _assert_lock_is_free(arena)
                assert len(arena.state.clients) == 1
                assert settled_memory() < memory + _NEAR
                assert len(caplog.records) <= log_lines, caplog.text
            finally:
                bystander.leave()

    return make


@pytest.fixture
def siege(besiege: Besiege) -> Iterator[Siege]:
    """A siege of a server with its usual settings."""
    with besiege() as started:
        yield started


def _wait_for_all_accepted(arena: Arena) -> None:
    """Connections are accepted in turn, so once the last one is answered or refused, none waits any more."""
    with arena.connect() as last, suppress(OSError):
        last.shutdown(socket.SHUT_WR)
        read_all(last)


def _assert_lock_is_free(arena: Arena) -> None:
    lock = arena.state.keyspace.lock
    assert lock.acquire(timeout=PATIENCE)
    lock.release()
