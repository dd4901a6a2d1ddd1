"""Counters that more than one thread raises, for INFO; what only one connection counts is in its session."""

from __future__ import annotations

import threading
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING

from kvserver.access.rules import Reason

if TYPE_CHECKING:
    from kvserver.session import Session

COUNTED = ("commands", "reads", "writes", "received", "sent", "hits", "misses")
"""What each session counts for itself."""


class End(Enum):
    """A limit that a connection was ended for, by its name in INFO."""

    IDLE = "client_idle_timeout_disconnections"
    HALF_COMMAND = "client_request_timeout_disconnections"
    STALLED = "client_write_timeout_disconnections"
    TOO_LONG = "client_query_buffer_limit_disconnections"
    TOO_SLOW = "client_output_buffer_limit_disconnections"
    HANDSHAKE = "client_tls_handshake_failures"
    BUFFERS = "evicted_clients"
    KEEPALIVE = "client_keepalive_disconnections"


class Stats:
    """The counters, each changed under ``lock``. A connection's own join ``closed`` when it ends."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connections = 0
        self.rejected = 0
        self.delayed = 0  # connections that waited for their turn to be accepted
        self.ends: Counter[End] = Counter()
        self.denied: Counter[Reason] = Counter()  # what users were not allowed to do
        self.errors: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.resets: Counter[str] = Counter()  # what live sessions had counted at CONFIG RESETSTAT

    def retire(self, session: Session) -> None:
        """Add what one connection counted."""
        with self.lock:
            for name in COUNTED:
                self.closed[name] += getattr(session, name)

    def count_connection(self) -> None:
        """A connection was accepted, or is about to be refused."""
        with self.lock:
            self.connections += 1

    def count_rejection(self) -> None:
        """A connection was refused."""
        with self.lock:
            self.rejected += 1

    def count_delay(self) -> None:
        """A connection waits because others came too fast before it."""
        with self.lock:
            self.delayed += 1

    def count_end(self, why: End) -> None:
        """A connection is ended for a limit."""
        with self.lock:
            self.ends[why] += 1

    def count_denial(self, reason: Reason) -> None:
        """A client was not let in, or not allowed to do something."""
        with self.lock:
            self.denied[reason] += 1

    def count_error(self, code: str) -> None:
        """Count an error reply by its first word; a bounded number of different ones."""
        with self.lock:
            if code in self.errors or len(self.errors) < 128:
                self.errors[code] += 1
            else:
                self.errors["OTHER"] += 1

    def reset(self, live: Counter[str]) -> None:
        """Start anew; ``live`` is what open connections have counted until now."""
        with self.lock:
            self.resets += live
            self.connections = self.rejected = self.delayed = 0
            for counter in (self.ends, self.denied, self.errors):
                counter.clear()
