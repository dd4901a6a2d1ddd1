"""Commands run by the program that embeds the server, in its own thread and without a connection.

They take the same way as a client's: dispatch, the keyspace lock, the journal. So they are as atomic, they are watched,
notified, evicted and written to disk like any other. Not here: what a command does.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvserver import errors
from kvserver.access.users import owner
from kvserver.dispatch import execute
from kvserver.protocol.replies import Error, Reply
from kvserver.protocol.words import Word, encoded
from kvserver.session import Session

if TYPE_CHECKING:
    from kvserver.state import State

_NOT_HERE = frozenset(
    b"SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MONITOR MULTI EXEC DISCARD WATCH UNWATCH "
    b"CLIENT HELLO AUTH QUIT RESET SHUTDOWN".split()
)


class Direct:
    """Runs commands of the embedding program; :attr:`kvserver.Server.direct` is one. Threads may share it.

    ::

        server.direct("SET", "k", "v")
        with server.direct.atomic():     # nobody's command comes in between
            n = int(server.direct("GET", "n") or 0)
            server.direct("SET", "n", n * 2)
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._sessions = threading.local()

    def __call__(self, *words: Word) -> Reply:
        """Run a command, word by word; its reply as a value: bytes, int, float, bool, None, a list or a dict.

        With a data directory it returns when the change is as safe as ``fsync`` says, but within :meth:`atomic`, which
        waits at its end.

        Raises:
            CommandError: the server refuses the command, or it is about connections.
            TypeError: a word is neither bytes, text nor a number.
        """
        command = [encoded(word) for word in words]
        if not command or command[0].upper() in _NOT_HERE:
            raise Error("ERR this is about connections, and there is none here: use atomic(), or a client")
        self._check_running()
        session = self._session
        session.since = time.monotonic_ns()
        reply = execute(session, command)
        session.commands += 1
        if isinstance(reply, Error):
            raise reply
        if not self._state.keyspace.held():
            self._wait_until_safe()
        return reply

    @contextlib.contextmanager
    def atomic(self) -> Iterator[None]:
        """For a with block whose commands nobody else's come in between. Everybody waits for it: be quick.

        An exception in it ends it, and undoes nothing.
        """
        self._check_running()
        if self._state.gateway is not None:
            raise Error("ERR the data is at the backend, where others' commands come in between: use a transaction")
        keyspace = self._state.keyspace
        with keyspace.lock, keyspace.steps:
            keyspace.moment = None
            yield
        if not keyspace.held():  # an outer one waits
            self._wait_until_safe()

    @property
    def _session(self) -> Session:
        """This thread's, as a session belongs to one."""
        found: Session | None = getattr(self._sessions, "session", None)
        if found is None:
            found = self._sessions.session = Session(self._state, self._state.clients.next_id(), "127.0.0.1:0", "")
            found.be(owner())
            self._state.adopt(found)
        return found

    def _check_running(self) -> None:
        """Raise CommandError if what is done now would be lost: without its data yet, or no longer there."""
        if self._state.stopping.is_set():
            raise Error("ERR this server has stopped")
        if self._state.config.data_dir and self._state.persistence is None:
            raise Error(errors.LOADING)

    def _wait_until_safe(self) -> None:
        persistence = self._state.persistence
        if persistence is not None and not persistence.journal.wait_safe(persistence.journal.appended):
            raise Error("MISCONF the change could not be written to disk")
