r"""Bytes to replies, without input or output. See protocol.md for the grammar.

Not here: sockets, threads, time, and what a reply means to the command that asked.

The decoder is total: for any bytes, cut anywhere, it appends complete replies, or waits for more, or raises
one ProtocolError, after which it is dead. Its time is linear in the bytes and its memory follows the bytes
received, never a length that a header announces.

| reply                          | Python value                                    |
|--------------------------------|-------------------------------------------------|
| `+` simple string              | SimpleString, a kind of bytes                   |
| `-` error, `!` bulk error      | ServerError (an object, not raised)             |
| `:` integer, `(` big number    | int                                             |
| `$` bulk string                | bytes                                           |
| `=` verbatim string            | Verbatim, a kind of bytes                       |
| `_`, `$-1`, `*-1` null         | None                                            |
| `,` double, `#` boolean        | float, bool                                     |
| `*` array                      | list                                            |
| `%` map, `~` set               | dict, set; lists inside keys become tuples      |
| `\|` attribute                 | dropped: the reply it precedes is what counts   |
| `>` push                       | Push, a list, given to on_push and not a reply  |
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final

from kvclient.errors import ProtocolError, server_error
from kvclient.protocol.types import Push, SimpleString, Verbatim

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.protocol.types import Reply

MAX_BULK: Final = 512 * 1024 * 1024
MAX_REPLY: Final = 1024 * 1024 * 1024
MAX_LINE: Final = 64 * 1024
MAX_DEPTH: Final = 128
MAX_DIGITS: Final = 4096  # of a big number: below the limit at which int() refuses

OK: Final = SimpleString(b"OK")

_STATUSES: Final = {s: SimpleString(s) for s in (b"PONG", b"QUEUED", b"string", b"none")} | {b"OK": OK}
_LENGTHS: Final = {b"%d" % n: n for n in range(1024)}
_NULLS: Final = (b"_\r\n", b"$-1\r\n")
_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_BIG: Final = re.compile(rb"[+-]?[0-9]+")
_DOUBLE: Final = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf|-?nan")


def _bulk_starts() -> list[tuple[bytes, int]]:
    """For the length of a bulk string with its frame, how it begins; something longer still, if there is none."""
    starts = [(b"$" * 1024, 1024)] * 1024
    for length in range(1024):
        start = b"$%d\r\n" % length
        if len(start) + length + 2 < len(starts):
            starts[len(start) + length + 2] = start, len(start)
    return starts


_BULK_STARTS: Final = _bulk_starts()


class Incomplete(enum.Enum):
    """What decode_single answers when it has no answer."""

    TOKEN = 0


INCOMPLETE: Final = Incomplete.TOKEN


def decode_single(data: bytes) -> Reply | Incomplete:
    """The reply that `data` exactly is, for the commonest replies; INCOMPLETE says: ask a Decoder."""
    if data == b"+OK\r\n":
        return OK
    if len(data) < len(_BULK_STARTS):  # the length of the whole tells that of the bulk string, if it is one
        start, size = _BULK_STARTS[len(data)]
        if data.startswith(start) and data.endswith(b"\r\n"):
            return data[size:-2]
        if data.startswith(b":") and data.endswith(b"\r\n"):
            return _LENGTHS.get(data[1:-2], INCOMPLETE)
    return None if data in _NULLS else INCOMPLETE


def _integer(line: bytes) -> int:
    if not _INTEGER.fullmatch(line):
        raise _malformed("integer", line)
    value = int(line)
    if not -(1 << 63) <= value < 1 << 63:
        raise _malformed("integer", line)
    return value


def _big_number(line: bytes) -> int:
    if len(line) > MAX_DIGITS or not _BIG.fullmatch(line):
        raise _malformed("big number", line)
    return int(line)


def _double(line: bytes) -> float:
    if len(line) > MAX_DIGITS or not _DOUBLE.fullmatch(line):
        raise _malformed("double", line)
    return float(line)


def _boolean(line: bytes) -> bool:
    if line not in {b"t", b"f"}:
        raise _malformed("boolean", line)
    return line == b"t"


def _null(line: bytes) -> None:
    if line:
        raise _malformed("null", line)


def _simple(line: bytes) -> SimpleString:
    return _STATUSES.get(line) or SimpleString(line)


_SCALARS: Final[dict[int, Callable[[bytes], Reply]]] = {
    ord("+"): _simple,
    ord("-"): server_error,
    ord(":"): _integer,
    ord("("): _big_number,
    ord(","): _double,
    ord("#"): _boolean,
    ord("_"): _null,
}
_ARRAY, _MAP, _SET, _PUSH, _ATTRIBUTE = (ord(c) for c in "*%~>|")
_AGGREGATES: Final = frozenset({_ARRAY, _MAP, _SET, _PUSH, _ATTRIBUTE})
_SIMPLE, _BULK, _BULK_ERROR, _VERBATIM = (ord(c) for c in "+$!=")
_BULKS: Final = frozenset({_BULK, _BULK_ERROR, _VERBATIM})
_KINDS: Final = frozenset(_SCALARS) | _AGGREGATES | _BULKS


def _malformed(what: str, line: bytes) -> ProtocolError:
    return ProtocolError(f"the server sent a malformed {what}, {line[:40]!r}: is that a Redis or Valkey server's port?")


class _Frame:
    """An aggregate that is being read."""

    __slots__ = ("items", "kind", "left")

    def __init__(self, kind: int, left: int) -> None:
        self.kind = kind
        self.left = left
        self.items: list[Reply] = []


class Decoder:
    """Bytes in, replies out, for one connection.

    Attributes:
        replies: complete replies in order; whoever consumes them removes them.
        error: the ProtocolError that ended this decoder, if one did.
    """

    __slots__ = (
        "_bulk_kind", "_bulk_size", "_held", "_max_bulk", "_max_reply", "_on_push", "_parts", "_spent",
        "_stack", "error", "replies",
    )  # fmt: skip

    def __init__(
        self,
        *,
        max_bulk: int = MAX_BULK,
        max_reply: int = MAX_REPLY,
        on_push: Callable[[Push], None] | None = None,
    ) -> None:
        self.replies: list[Reply] = []
        self.error: ProtocolError | None = None
        self._max_bulk = max_bulk
        self._max_reply = max_reply
        self._on_push = on_push
        self._stack: list[_Frame] = []
        self._parts: list[bytes] = []  # received, not yet decoded
        self._held = 0  # bytes in _parts
        self._bulk_size = -1  # of the bulk string whose bytes _parts holds; -1: _parts holds part of a line
        self._bulk_kind = 0
        self._spent = 0  # bytes of the unfinished reply that earlier feeds brought

    @property
    def idle(self) -> bool:
        """True between two replies: nothing is half read and nothing waits in `replies`."""
        return not (self._parts or self._stack or self.replies or self._bulk_size >= 0 or self.error)

    def feed(self, data: bytes) -> None:
        """Take the next bytes received; complete replies are appended to `replies`.

        Raises:
            ProtocolError: the bytes are not RESP or exceed a limit; replies complete before it are kept.
        """
        if self.error:
            raise self.error
        done = len(self.replies)
        try:
            self._feed(data)
            self._account(len(data), finished=len(self.replies) > done)
        except ProtocolError as error:
            self.error = error
            self._parts.clear()
            self._stack.clear()
            raise

    def _feed(self, data: bytes) -> None:
        if self._bulk_size >= 0:
            self._feed_bulk(data)
        elif not self._parts:
            self._parse(data, 0)
        elif b"\n" in data:
            data = b"".join((*self._parts, data))
            self._parts.clear()
            self._held = 0
            self._parse(data, 0)
        else:
            self._hold(data)

    def _account(self, received: int, *, finished: bool) -> None:
        """Bound the sum of the bytes that one unfinished reply has brought."""
        between = not (self._parts or self._stack or self._bulk_size >= 0)
        self._spent = 0 if finished or between else self._spent + received
        if self._spent > self._max_reply:
            raise ProtocolError(f"a reply is longer than {self._max_reply} bytes: ask for less at once")

    def _hold(self, data: bytes) -> None:
        """Keep the bytes of a line or bulk string that has not ended yet."""
        if data:
            self._parts.append(data)
            self._held += len(data)
        if self._bulk_size < 0 and self._parts:
            if self._parts[0][0] not in _KINDS:  # at once, and not when the line ends, if it ever does
                raise _malformed("type", self._parts[0])
            if self._held > MAX_LINE:
                raise _malformed("line (too long)", self._parts[0])

    def _feed_bulk(self, data: bytes) -> None:
        """Go on with the bulk string of which earlier bytes are held; join its parts once, at its end."""
        cut = self._bulk_size + 2 - self._held  # where in data it ends
        if cut > len(data):
            self._hold(data)
            return
        parts, self._parts, self._held = self._parts, [], 0
        size, self._bulk_size = self._bulk_size, -1
        if cut >= 2:
            parts.append(data[: cut - 2])
            text, end = b"".join(parts), data[cut - 2 : cut]
        else:  # the carriage return, too, came earlier
            joined = b"".join((*parts, data[:cut]))
            text, end = joined[:size], joined[size:]
        if end != b"\r\n":
            raise _malformed("end of a bulk string", end)
        self._deliver(self._bulk_value(self._bulk_kind, text))
        if cut < len(data):
            self._parse(data, cut)

    def _parse(self, data: bytes, pos: int) -> None:
        """Decode every complete item of `data` from `pos` on; hold what remains."""
        size = len(data)
        stack, replies = self._stack, self.replies
        while pos < size:
            if data.startswith(b"+OK\r\n", pos) and not stack:  # by far the commonest of many replies
                replies.append(OK)
                pos += 5
                continue
            end = data.find(b"\n", pos) - 1
            if end == -2:
                break
            kind = data[pos]
            line = data[pos + 1 : end]
            if end <= pos or data[end] != 13:
                raise _malformed("line end", data[pos : end + 2])
            pos = end + 2
            if kind in _BULKS:
                stop = pos + _LENGTHS.get(line, size)  # short ones first; the rest ends beyond the data
                if kind != _BULK or data[stop : stop + 2] != b"\r\n":
                    pos = self._open_bulk(kind, line, data, pos)
                    if self._bulk_size >= 0:
                        break
                    continue
                value: Reply = data[pos:stop]
                pos = stop + 2
            elif kind == _SIMPLE and line in _STATUSES:
                value = _STATUSES[line]
            else:
                self._line(kind, line)
                continue
            if stack:
                self._deliver(value)
            else:
                replies.append(value)
        if pos < size:
            self._hold(data[pos:])

    def _open_bulk(self, kind: int, line: bytes, data: bytes, pos: int) -> int:
        """A bulk string of any kind whose header ends before `pos`; returns where it ends.

        If it goes on beyond the data, that is noted and `pos` returned.
        """
        length = self._length(kind, line, self._max_bulk)
        if length < 0:
            self._deliver(None)
            return pos
        stop = pos + length
        if stop + 2 > len(data):
            self._bulk_kind, self._bulk_size = kind, length
            return pos
        if data[stop : stop + 2] != b"\r\n":
            raise _malformed("end of a bulk string", data[stop : stop + 2])
        self._deliver(self._bulk_value(kind, data[pos:stop]))
        return stop + 2

    def _line(self, kind: int, line: bytes) -> None:
        """An item that is one line, or an aggregate's header."""
        if kind in _AGGREGATES:
            self._open(kind, line)
            return
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise _malformed("type", bytes((kind,)))
        if len(line) > MAX_LINE:
            raise _malformed("line (too long)", line)
        self._deliver(scalar(line))

    def _length(self, kind: int, line: bytes, most: int) -> int:
        """A header's count, strictly read; -1 is the null of RESP2."""
        if line == b"-1" and kind in {_BULK, _ARRAY}:
            return -1
        if len(line) > 19 or not line.isdigit() or (line[0] == 48 and line != b"0"):
            raise _malformed("length", line)
        length = int(line)
        if length > most:
            raise ProtocolError(f"the server announced a length of {length}, more than the limit of {most}")
        return length

    def _open(self, kind: int, line: bytes) -> None:
        """Begin an aggregate. An attribute is one whose last item is the reply it precedes."""
        count = _LENGTHS.get(line)
        if count is None:
            count = self._length(kind, line, (1 << 31) - 1)
        if count < 0:
            self._deliver(None)
            return
        if kind == _PUSH and self._stack:
            raise ProtocolError("the server sent a push message inside another reply")
        if len(self._stack) >= MAX_DEPTH:
            raise ProtocolError(f"the server sent replies nested more than {MAX_DEPTH} deep")
        frame = _Frame(kind, count * 2 if kind in {_MAP, _ATTRIBUTE} else count)
        frame.left += kind == _ATTRIBUTE
        self._stack.append(frame)
        if not frame.left:
            self._close()

    def _deliver(self, value: Reply) -> None:
        """Put a complete value where it belongs: into the innermost open aggregate, or among the replies."""
        if not self._stack:
            self.replies.append(value)
            return
        frame = self._stack[-1]
        frame.items.append(value)
        frame.left -= 1
        if not frame.left:
            self._close()

    def _close(self) -> None:
        """End the innermost aggregate, and those that end with it."""
        stack = self._stack
        while stack and not stack[-1].left:
            frame = stack.pop()
            if frame.kind == _PUSH:
                if self._on_push:
                    self._on_push(Push(frame.items))
                return
            value = _assemble(frame)
            if not stack:
                self.replies.append(value)
                return
            stack[-1].items.append(value)
            stack[-1].left -= 1

    def _bulk_value(self, kind: int, text: bytes) -> Reply:
        if kind == _BULK:
            return text
        if kind == _BULK_ERROR:
            return server_error(text)
        if text[3:4] != b":" or not text[:3].isascii():
            raise _malformed("verbatim string", text)
        return Verbatim(text[4:], text[:3].decode("ascii"))


def _assemble(frame: _Frame) -> Reply:
    """The Python value of a complete aggregate."""
    items = frame.items
    if frame.kind == _ARRAY:
        return items
    if frame.kind == _ATTRIBUTE:
        return items[-1]
    if frame.kind == _SET:
        return set(map(_frozen, items))
    return dict(zip(map(_frozen, items[::2]), items[1::2], strict=True))


def _frozen(value: Reply) -> Reply:
    """A hashable stand-in for a value that is to be a key; its depth is bounded by MAX_DEPTH."""
    if not isinstance(value, list | dict | set):
        return value
    if isinstance(value, list):
        frozen: object = tuple(_frozen(item) for item in value)
    elif isinstance(value, dict):
        frozen = tuple((key, _frozen(item)) for key, item in value.items())
    else:
        frozen = frozenset(value)
    return frozen  # type: ignore[return-value]  # only ever a key, where no caller looks for a list
