"""Replies to bytes, in RESP2 or RESP3. Pure functions of the value: no connection, no command names.

A reply type is one entry in a table a protocol version; :func:`encoding` gives the table a connection uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kvserver.protocol.inner import bulk, integer, simple
from kvserver.protocol.replies import Error, NullArray, Push, Raw, Reply, Set, Several, SimpleString, Verbatim

Encode = Callable[[Reply], bytes]
Encoding = Mapping[type, Callable[..., bytes]]
"""The function that encodes a reply, by the reply's class."""

_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


def encoding(version: int) -> Encoding:
    """The encoding of protocol ``version`` (2 or 3), to be used as ``encoding[reply.__class__](reply)``."""
    return _RESP2 if version == 2 else _RESP3


def encode_error(text: str) -> bytes:
    """An error line. Line ends inside become spaces, so that one error is always one line (CVE-2025-67733).

    Those at the end go. ``text`` holds raw request bytes as surrogate escapes where a command quotes what it was sent.
    """
    return b"-" + text.encode("utf-8", "surrogateescape").rstrip(b"\r\n").translate(_LINE_ENDS) + b"\r\n"


def format_double(value: float) -> bytes:
    """A double as clients expect it: shortest form that reads back the same, ``inf``, ``-inf``, ``nan``."""
    text = repr(value)
    return text.removesuffix(".0").encode("ascii")


def _encode2(reply: Reply) -> bytes:
    return _RESP2[reply.__class__](reply)


def _encode3(reply: Reply) -> bytes:
    return _RESP3[reply.__class__](reply)


def _error(error: Error) -> bytes:
    return encode_error(error.text)


def _array(encode: Encode) -> Callable[[list[Reply]], bytes]:
    return lambda items: b"*%d\r\n%b" % (len(items), b"".join(map(encode, items)))


def _flat_map(items: Mapping[bytes | int, Reply]) -> bytes:
    return b"*%d\r\n%b" % (2 * len(items), _pairs(items, _encode2))


def _map(items: Mapping[bytes | int, Reply]) -> bytes:
    return b"%%%d\r\n%b" % (len(items), _pairs(items, _encode3))


def _pairs(items: Mapping[bytes | int, Reply], encode: Encode) -> bytes:
    return b"".join(encode(key) + encode(value) for key, value in items.items())


def _double(value: float) -> bytes:
    return b",%b\r\n" % format_double(value)


def _verbatim(value: bytes) -> bytes:
    return b"=%d\r\ntxt:%b\r\n" % (len(value) + 4, value)


class _ByType(dict[type, Callable[..., bytes]]):
    """A function a type; a type seen for the first time gets its nearest base's."""

    def __missing__(self, kind: type) -> Callable[..., bytes]:
        for base in kind.__mro__[1:]:
            if base in self:
                self[kind] = self[base]
                return self[base]
        raise TypeError(f"{kind.__name__} is no type of reply")


_RESP2 = _ByType(
    {
        bytes: bulk,
        type(None): lambda _: b"$-1\r\n",
        int: integer,
        bool: lambda value: b":1\r\n" if value else b":0\r\n",
        float: lambda value: bulk(format_double(value)),
        SimpleString: simple,
        Verbatim: bulk,
        Raw: bytes,
        Error: _error,
        list: _array(_encode2),
        Set: _array(_encode2),
        Push: _array(_encode2),
        Several: lambda items: b"".join(map(_encode2, items)),
        NullArray: lambda _: b"*-1\r\n",
        dict: _flat_map,
    }
)

_RESP3 = _ByType(
    {
        **_RESP2,
        type(None): lambda _: b"_\r\n",
        bool: lambda value: b"#t\r\n" if value else b"#f\r\n",
        float: _double,
        Verbatim: _verbatim,
        list: _array(_encode3),
        Set: lambda items: b"~%d\r\n%b" % (len(items), b"".join(map(_encode3, items))),
        Several: lambda items: b"".join(map(_encode3, items)),
        NullArray: lambda _: b"_\r\n",
        Push: lambda items: b">%d\r\n%b" % (len(items), b"".join(map(_encode3, items))),
        dict: _map,
    }
)
