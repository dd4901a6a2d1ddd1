"""Waiting for whichever of several connections speaks first, and being woken from that, also by a signal's handler.

Not here: reading what they say (connection.py).
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvclient.connection import Connection


class Waker:
    """Ends a wait, from another thread or from a signal's handler: it takes no lock."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def wake(self) -> None:
        """End the wait, or the next if there is none now."""
        with contextlib.suppress(OSError):  # full: it will end anyway
            self._writer.send(b"x")

    def wait(self, connections: Sequence[Connection], seconds: float) -> list[Connection]:
        """Those that have something to read, or have been lost; none if it was woken or the time is up."""
        speaking = [connection for connection in connections if connection.buffered]
        if speaking:
            return speaking
        with selectors.DefaultSelector() as selector:  # select() alone takes no descriptor above a thousand
            selector.register(self._reader, selectors.EVENT_READ)
            for connection in connections:
                selector.register(connection, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(max(0.0, seconds))]
        if self._reader in ready:
            with contextlib.suppress(OSError):
                self._reader.recv(4096)
        return [connection for connection in connections if connection in ready]

    def close(self) -> None:
        """Close the sockets."""
        self._reader.close()
        self._writer.close()

    def __del__(self) -> None:  # of what was made and never entered
        with contextlib.suppress(AttributeError):  # no descriptors were left for it
            self.close()
