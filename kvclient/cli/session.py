"""Asking the server, over a connection of one's own and not a pool: at a prompt, SELECT is meant to last.

Not here: where lines come from (prompt.py), and how replies look (display.py).
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from kvclient.cli.arguments import Form
from kvclient.cli.display import as_json, complain, write_typed
from kvclient.client import client_of, tls_context
from kvclient.connection import Connection
from kvclient.errors import ServerError
from kvclient.protocol import encode_command
from kvclient.serializers import PLAIN
from kvclient.text import show_raw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvclient.protocol import Reply
    from kvclient.url import Options

# These answer with none, or more than one, of the replies that a command is expected to have.
_UNANSWERED: Final = frozenset(
    b"SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MONITOR SYNC PSYNC".split()
)


class Problem(Exception):  # noqa: N818 - never leaves the program
    """Something to tell in one line."""


class Session:
    """A connection that is made again when it was lost, and how its replies are shown."""

    def __init__(self, options: Options, form: Form) -> None:
        self._options = options
        self._form = form
        self._tls = tls_context(options) if options.tls else None
        self._cluster = client_of(options, PLAIN) if options.nodes else None  # no connection to a node would do
        self._connection = Connection(options, self._tls)
        if self._cluster is None:
            self._connection = self._open()
        else:
            self._cluster.check()

    def _open(self) -> Connection:
        connection = Connection(self._options, self._tls)
        connection.open(time.monotonic() + self._options.timeout)
        return connection

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        if self._cluster is not None:
            self._cluster.close()

    def ask(self, words: Sequence[bytes]) -> Reply:
        """One command's reply; an error reply is returned.

        Raises:
            Problem: the command has not one reply.
            KVError: there is none.
        """
        _refuse_unanswered(words)
        if self._cluster is not None:
            try:
                return self._cluster.execute(*words)
            except ServerError as error:
                return error
        if self._connection.closed:
            self._connection = self._open()
        try:
            return self._connection.call(encode_command(words), time.monotonic() + self._options.timeout)
        except BaseException:
            self._connection.close()
            raise

    def run(self, words: Sequence[bytes]) -> int:
        """Run one command, show its reply, and return the exit status it stands for."""
        reply = self.ask(words)
        if self._form is Form.JSON and isinstance(reply, ServerError):
            complain(f"{reply.code} {reply.message}")
        elif self._form is Form.TYPED:
            write_typed(reply)
        else:
            data = as_json(reply).encode() if self._form is Form.JSON else show_raw(reply)
            sys.stdout.flush()
            sys.stdout.buffer.write(data + b"\n")
            sys.stdout.buffer.flush()
        return 1 if isinstance(reply, ServerError) else 0


def _refuse_unanswered(words: Sequence[bytes]) -> None:
    name = words[0].upper()
    if name in {b"SUBSCRIBE", b"PSUBSCRIBE"}:
        channel = words[-1].decode("utf-8", "replace")
        raise Problem(f"{name.decode()} never ends: use the tool, as in: kv watch --channel {channel!r}")
    if name in _UNANSWERED or [word.upper() for word in words[:2]] == [b"CLIENT", b"REPLY"]:
        raise Problem(f"{name.decode('utf-8', 'replace')} is not for this prompt, which waits for one reply each")
