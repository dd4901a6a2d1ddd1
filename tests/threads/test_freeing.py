"""What takes long to free does not keep the others from the interpreter."""

from __future__ import annotations

import threading
import time

from kvserver.config import Config
from kvserver.dispatch import execute
from kvserver.session import Session
from kvserver.state import State


def test_others_run_while_a_million_keys_are_freed() -> None:
    state = State(Config())
    session = Session(state, state.clients.next_id(), "here", "there")
    state.keyspace.databases[0].values = {b"%d" % number: b"v" for number in range(1_000_000)}
    started, ended = threading.Event(), threading.Event()
    longest = 0.0

    def tick() -> None:
        nonlocal longest
        last = time.monotonic()
        while not ended.is_set():
            now = time.monotonic()
            last, longest = now, max(longest, now - last)
            started.set()

    ticking = threading.Thread(target=tick)
    ticking.start()
    assert started.wait(60)
    before = time.monotonic()
    assert execute(session, [b"FLUSHALL"]) == b"OK"
    took = time.monotonic() - before
    ended.set()
    ticking.join()
    assert longest < took / 2
    state.retire(session)
