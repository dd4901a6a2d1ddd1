"""The connections that MONITOR: each is sent a line for every command that runs.

A line is put together once and appended to each receiver's push queue, which never waits. Commands that work on data
are told of under the keyspace lock, so the lines are in the order of the effects.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from kvserver.observe.redaction import redacted
from kvserver.protocol.replies import SimpleString
from kvserver.pushes import Message
from kvserver.session import Session

_ESCAPES = {
    **{byte: b"\\x%02x" % byte for byte in range(256) if not 0x20 <= byte < 0x7F},
    **{ord(a): b"\\" + b.encode("ascii") for a, b in zip('\n\r\t\a\b\\"', 'nrtab\\"', strict=True)},
}


class Monitors:
    """Those who watch. ``sessions`` is replaced as a whole, so it is read without the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.sessions: tuple[Session, ...] = ()

    def add(self, session: Session) -> None:
        """Begin to watch; the session has a push queue."""
        with self._lock:
            if session not in self.sessions:
                self.sessions = (*self.sessions, session)

    def remove(self, session: Session) -> None:
        """Stop watching."""
        with self._lock:
            self.sessions = tuple(other for other in self.sessions if other is not session)

    def tell(self, session: Session, words: Sequence[bytes]) -> None:
        """Show a command to all who watch, but for what is secret in it."""
        microseconds = time.time_ns() // 1000
        line = b"%d.%06d [%d %b] %b" % (
            microseconds // 1_000_000,
            microseconds % 1_000_000,
            session.db,
            session.address.encode("utf-8", "surrogateescape"),
            b" ".join(map(_quoted, redacted(words))),
        )
        message = Message(SimpleString(line))
        for watcher in self.sessions:
            if watcher.pushes is not None:
                watcher.pushes.put(message)


def _quoted(word: bytes) -> bytes:
    if word.isalnum():
        return b'"%b"' % word
    return b'"%b"' % b"".join(_ESCAPES.get(byte) or bytes((byte,)) for byte in word)
