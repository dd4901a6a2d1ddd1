"""Whoever asks over HTTP, as the rest of the server sees them: a session, whose commands go through dispatch.

So permissions, limits, the slow log, MONITOR and the counters hold for them as for anybody. The session is of one
request, and belongs to its thread.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Self

from kvserver.dispatch import execute, forbidden
from kvserver.protocol.replies import Error, Reply
from kvserver.protocol.words import encoded
from kvserver.session import Session
from kvserver.state import State
from kvserver.web.exchange import RefusalError


class Visitor:
    """One request's session; a context manager that takes leave of it.

    Args:
        state: the server's.
        address: where the request comes from, as ``host:port``.
        local_address: where it arrived.
    """

    def __init__(self, state: State, address: str, local_address: str) -> None:
        self.state = state
        self.session = Session(state, state.clients.next_id(), address, local_address)
        self.session.no_touch = True  # looking at a key is not using it
        self._ran = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.state.retire(self.session)

    def run(self, *words: bytes | str) -> Reply:
        """Run a command.

        Raises:
            Error: it is answered with one.
        """
        session = self.session
        session.since = time.monotonic_ns()
        self._ran = True
        reply = execute(session, [encoded(word) for word in words])
        session.commands += 1
        if isinstance(reply, Error):
            raise reply
        return reply

    def may(self, *words: bytes | str) -> bool:
        """Whether the user may run a command, now. It is not run."""
        user = self.session.user
        is_there = self.state.users.find(user.name) is user and user.permissions.enabled
        return is_there and forbidden(self.session, [encoded(word) for word in words]) is None

    def settle(self) -> None:
        """Wait until what the commands have done or seen is as safe on disk as a reply needs.

        Raises:
            RefusalError: it cannot be made safe.
        """
        state = self.state
        if not self._ran or state.persistence is None or state.refuses_writes is not None:
            return
        journal = state.persistence.journal
        if not journal.wait_safe(journal.appended):
            raise RefusalError(
                HTTPStatus.INTERNAL_SERVER_ERROR, "not_safe", "The disk does not take the change; it may be lost."
            )
