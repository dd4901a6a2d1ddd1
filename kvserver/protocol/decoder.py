"""Bytes to commands: the request half of RESP, and its inline form.

What lives here: framing, and nothing else. What must not: sockets, command names, replies.

The decoder is total. Fed any bytes, cut anywhere, it yields commands, or waits for more, or raises
one :class:`ProtocolError` after which it is dead. Three rules keep it safe against a hostile peer:

* nothing is allocated from an announced count or length, only from bytes that have arrived;
* it remembers where it stopped, so the work is linear in the bytes however they are cut;
* digits are checked before ``int()``, which would accept ``+1``, ``1_0`` and Arabic digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain

from kvserver.protocol import inner
from kvserver.protocol.inline import UnbalancedQuotesError, split_arguments

Command = list[bytes]
"""One decoded command: its name, then its arguments. Never empty."""

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_CRLF = b"\r\n"
_STAR = b"*"[0]
_LONG = 4 * 1024 * 1024
"""Bytes of an argument from which on it is put together apart from the buffer, to be handed over without a copy. For
less a copy is quicker: memory this large grows without one, since the system moves its pages."""


_QUICK = 16 * 1024
"""Bytes of a command up to which it is worth taking what is behind it out of the buffer, to look for short ones."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one command may announce or hold, in bytes unless said otherwise."""

    line: int = 64 * 1024
    """An inline command, or the line of a count or length, before its line feed."""
    arguments: int = 1024 * 1024
    """Arguments in one command (a count)."""
    bulk: int = 512 * 1024 * 1024
    """One argument: ``proto-max-bulk-len``."""
    command: int = 1024 * 1024 * 1024
    """All arguments of one command together: ``client-query-buffer-limit``."""
    stranger: bool = False
    """Whether these are for a client that has not authenticated: what an error then says."""


STRANGER = Limits(arguments=10, bulk=16 * 1024, stranger=True)
"""For a client that has not authenticated, who needs no more (CVE-2021-32675)."""


_CLIENT_HELLO = b"\x16\x03"
"""How a client that wants TLS begins: a handshake record, and the first half of its version (RFC 8446, 5.1)."""


class ProtocolError(Exception):
    """The peer broke the framing; the text says how. The connection cannot be read any further."""


class CommandTooLongError(ProtocolError):
    """A command goes beyond one of the limits; INFO counts the connections that end by it."""


class Decoder:
    """An incremental decoder for one connection. Not thread-safe: it belongs to the connection's thread.

    Usage::

        for command in decoder.feed(received):   # exhaust it before the next feed
            ...
    """

    __slots__ = (
        "_arguments",
        "_buffer",
        "_dead",
        "_length",
        "_long",
        "_missing",
        "_position",
        "_scanned",
        "_size",
        "limits",
    )

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits if limits is not None else Limits()  # may be replaced between feeds
        self._buffer = bytearray()  # received, not yet decoded, when a command is incomplete
        self._position = 0  # where in the buffer decoding goes on
        self._scanned = 0  # no line end lies before this place
        self._arguments: Command = []  # of the command in progress
        self._missing = 0  # arguments still to come
        self._length = -1  # of the argument in progress; -1 before its header
        self._long = BytesIO()  # what has come of a long one
        self._size = 0  # bytes of the arguments in progress
        self._dead: ProtocolError | None = None

    @property
    def pending(self) -> bool:
        """Whether part of a command has arrived and the rest is awaited."""
        return bool(self._buffer) or self._missing > 0

    @property
    def held(self) -> int:
        """Bytes received and not yet part of a complete command."""
        return len(self._buffer) + self._long.tell() + self._size - max(0, self._length)

    def feed(self, data: bytes) -> Iterable[Command]:
        """Every command that ``data`` completes, in order: a list, unless there are some that are not short.

        Raises:
            ProtocolError: while it is iterated, after the commands before the fault; and so on every later call.
        """
        if self._dead is not None:
            return self._end()
        if self.limits.stranger:  # what is quick does not look at limits as low as these
            self._buffer += data
            return self._rest()
        if self._buffer or self._missing:
            return self._complete(data)
        commands, size = inner.split_commands(data)
        return commands if size == len(data) else self._followed(commands, data[size:])

    def _complete(self, data: bytes) -> Iterable[Command]:
        """As :meth:`feed`, when a command has begun. What is behind it is mostly quick again."""
        if self._length >= _LONG and not self._buffer:
            data = data[self._lengthen(data) :]
            if self._long.tell() < self._length:
                return ()
        self._buffer += data
        try:
            command = self._next()
        except ProtocolError as error:
            return self._die(error)
        if command is None:
            return ()
        if sum(map(len, command)) > _QUICK:
            return chain((command,), self._rest())
        data = self._take_rest()
        commands, size = inner.split_commands(data)
        return self._followed([command, *commands], data[size:])

    def _followed(self, commands: list[Command], data: bytes) -> Iterable[Command]:
        """The commands, and those in ``data``: mostly the beginning of one; otherwise they are not short."""
        self._buffer += data
        try:
            command = self._next()
        except ProtocolError as error:
            return chain(commands, self._die(error))
        return commands if command is None else chain(commands, (command,), self._rest())

    def _rest(self) -> Iterator[Command]:
        """The commands in the buffer, each decoded when it is asked for: there may be many, and limits may change."""
        try:
            while (command := self._next()) is not None:
                yield command
        except ProtocolError as error:
            yield from self._die(error)

    def _die(self, error: ProtocolError) -> Iterator[Command]:
        """Forget everything at once; whoever asks for a command after those that have come is told what is wrong."""
        self._dead = error
        self._long = BytesIO()
        self._buffer.clear()
        self._arguments = []
        return self._end()

    def _end(self) -> Iterator[Command]:
        if self._dead is not None:
            raise self._dead
        yield from ()

    def _take_rest(self) -> bytes:
        rest = bytes(self._buffer[self._position :])
        self._buffer.clear()
        self._position = self._scanned = 0
        return rest

    def _next(self) -> Command | None:
        """The next command in the buffer, or None when its end has not arrived."""
        while self._missing == 0:
            if self._position >= len(self._buffer):
                self._compact()
                return None
            started = self._start_array() if self._buffer[self._position] == _STAR else self._inline()
            if started is None:
                self._compact()
                return None
            if started:
                return started
        while self._missing > 0:
            if not self._bulk():
                self._compact()
                return None
        command, self._arguments, self._size = self._arguments, [], 0
        return command

    def _compact(self) -> None:
        """Forget what has been decoded; a bytearray drops its front without moving the rest."""
        del self._buffer[: self._position]
        self._scanned = max(0, self._scanned - self._position)
        self._position = 0

    def _line(self, ending: bytes, fault: str) -> bytes | None:
        """The line at the position, without its ending, or None when it is incomplete."""
        end = self._buffer.find(ending, max(self._position, self._scanned))
        if (end if end >= 0 else len(self._buffer)) - self._position > self.limits.line:
            raise CommandTooLongError(f"too big {fault}")
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        return bytes(self._buffer[self._position : end])

    def _header(self, fault: str) -> bytes | None:
        """The line of a count or length. It ends at a carriage return, which a line feed must follow."""
        line = self._line(b"\r", fault)
        if line is None:
            return None
        end = self._position + len(line)
        if len(self._buffer) < end + 2:
            self._scanned = end
            return None
        return line

    def _check_line_end(self, line: bytes) -> None:
        """That a line feed follows a header's carriage return. Valkey looks at that before the number."""
        if self._buffer[self._position + len(line) + 1] != 10:
            raise ProtocolError("invalid CRLF in request")

    def _skip_header(self, line: bytes) -> None:
        self._position += len(line) + 2

    def _start_array(self) -> Command | None:
        """Read a ``*count`` line. An empty list means: no command yet, go on; None: wait for more."""
        line = self._header("mbulk count string")
        if line is None:
            return None
        self._check_line_end(line)
        count = _integer(line[1:])
        if count is None or count > self.limits.arguments:
            raise self._fault("multibulk", count, self.limits.arguments)
        self._skip_header(line)
        self._missing = max(0, count)  # an empty or negative array is no command, and is passed over
        return []

    def _inline(self) -> Command | None:
        """Read an inline command; an empty line gives an empty list, and is passed over."""
        if self._buffer.startswith(_CLIENT_HELLO, self._position):  # it would wait for a line that does not come
            raise ProtocolError("this port does not speak TLS")
        line = self._line(b"\n", "inline request")
        if line is None:
            return None
        self._position += len(line) + 1
        try:
            return split_arguments(line.removesuffix(b"\r"))
        except UnbalancedQuotesError:
            raise ProtocolError("unbalanced quotes in request") from None

    def _bulk(self) -> bool:
        """Read one argument; False when it is incomplete."""
        if self._length < 0:
            line = self._header("bulk count string")
            if line is None:
                return False
            self._length = self._bulk_length(line)
            self._skip_header(line)
        if self._length >= _LONG:
            return self._long_bulk()
        start, end = self._position, self._position + self._length
        if len(self._buffer) < end + 2:
            return False
        if self._buffer[end : end + 2] != _CRLF:
            raise ProtocolError("invalid CRLF in request")
        self._finish_bulk(bytes(memoryview(self._buffer)[start:end]), end + 2)
        return True

    def _finish_bulk(self, argument: bytes, end: int) -> None:
        self._arguments.append(argument)
        self._position = self._scanned = end
        self._missing -= 1
        self._length = -1

    def _long_bulk(self) -> bool:
        """Read a long argument. ``BytesIO`` grows with what comes, and gives its bytes away as they are."""
        with memoryview(self._buffer) as view, view[self._position :] as rest:
            self._position += self._lengthen(rest)
        end = self._position
        if self._long.tell() < self._length or len(self._buffer) < end + 2:
            return False
        if self._buffer[end : end + 2] != _CRLF:
            raise ProtocolError("invalid CRLF in request")
        argument, self._long = self._long.getvalue(), BytesIO()
        self._finish_bulk(argument, end + 2)
        return True

    def _lengthen(self, data: bytes | memoryview) -> int:
        """Add what belongs to a long argument; how many bytes that is."""
        missing = self._length - self._long.tell()
        if len(data) <= missing:
            return self._long.write(data)
        with memoryview(data) as view, view[:missing] as part:
            return self._long.write(part)

    def _fault(self, what: str, number: int | None, limit: int) -> ProtocolError:
        if number is None or number <= limit:
            return ProtocolError(f"invalid {what} length")
        return CommandTooLongError(f"{'unauthenticated' if self.limits.stranger else 'invalid'} {what} length")

    def _bulk_length(self, line: bytes) -> int:
        if line[:1] != b"$":
            got = line[:1].decode("utf-8", "surrogateescape") or "\r"
            raise ProtocolError(f"expected '$', got '{got}'")
        self._check_line_end(line)
        length = _integer(line[1:])
        if length is None or not 0 <= length <= self.limits.bulk:
            raise self._fault("bulk", length, self.limits.bulk)
        self._size += length
        if self._size > self.limits.command:
            raise CommandTooLongError("command exceeds client-query-buffer-limit")
        return length


def _integer(digits: bytes) -> int | None:
    """A RESP integer: no sign but minus, no leading zero, nothing around it."""
    return int(digits) if _INTEGER.fullmatch(digits) else None
