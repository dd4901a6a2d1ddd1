"""Streams of bytes that are nearly conversations: made by chance, from a seed, and then damaged. No sockets here."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

KEYS = (b"a", b"b", b"c", b"", b"key with blanks", b"\x00\xff", b"\xc3\xa9", b"long" * 40)
VALUES = (b"", b"1", b"-7", b"10.5", b"9223372036854775807", b"text", b"\r\n", b"v" * 100, b"\x80" * 33, b"x" * 5000)
NUMBERS = (b"0", b"1", b"-1", b"7", b"100", b"4611686018427387904", b"-9223372036854775808", b"x", b"01", b"1_0", b"+1")
HEADERS = (
    b"0",
    b"-1",
    b"1",
    b"2",
    b"9" * 20,
    b"1048577",
    b"536870913",
    b"01",
    b"+2",
    b" 2",
    b"2 ",
    b"1_0",
    b"",
    b"\xd9\xa1",
)
LINE_ENDS = (b"", b"\r", b"\n", b"\n\r", b"\r\r\n", b"\r\n\r\n", b"\x00\r\n")

Word = Sequence[bytes]
TEMPLATES: dict[str, tuple[Word, ...]] = {
    "get": (KEYS,), "set": (KEYS, VALUES), "setnx": (KEYS, VALUES), "getset": (KEYS, VALUES), "getdel": (KEYS,),
    "append": (KEYS, VALUES), "strlen": (KEYS,), "incr": (KEYS,), "decr": (KEYS,), "incrby": (KEYS, NUMBERS),
    "decrby": (KEYS, NUMBERS), "incrbyfloat": (KEYS, (*NUMBERS, b"0.1", b"inf", b"1e400")), "mget": (KEYS, KEYS, KEYS),
    "mset": (KEYS, VALUES, KEYS, VALUES), "msetnx": (KEYS, VALUES, KEYS, VALUES), "del": (KEYS, KEYS),
    "unlink": (KEYS,), "exists": (KEYS, KEYS), "touch": (KEYS,), "type": (KEYS,), "rename": (KEYS, KEYS),
    "renamenx": (KEYS, KEYS),
    "copy": (KEYS, KEYS), "persist": (KEYS,), "ttl": (KEYS,), "setrange": (KEYS, (b"0", b"3", b"-1"), VALUES),
    "getrange": (KEYS, NUMBERS, NUMBERS), "setbit": (KEYS, (b"0", b"77", b"-1"), (b"0", b"1", b"2")),
    "getbit": (KEYS, NUMBERS), "bitcount": (KEYS,), "echo": (VALUES,), "ping": (), "multi": (), "exec": (),
    "discard": (), "unwatch": (), "select": ((b"0", b"1", b"15", b"16", b"-1", b"x"),), "dbsize": (),
    "lcs": (KEYS, KEYS),
}  # fmt: skip
"""Commands whose answers hang on nothing but what was sent before, and what may stand in each place."""
OTHERS: dict[str, tuple[Word, ...]] = {
    "subscribe": (KEYS,), "unsubscribe": (), "psubscribe": ((b"*", b"[a", b"*a" * 20),), "publish": (KEYS, VALUES),
    "hello": ((b"2", b"3", b"4", b"x"),), "auth": (VALUES,),
    "client": ((b"id", b"list", b"reply", b"tracking", b"info"), (b"on", b"off", b"skip")),
    "scan": (NUMBERS,), "keys": ((b"*", b"[a", b"*a" * 20),), "info": (), "reset": (),
    "watch": (KEYS,), "expire": (KEYS, NUMBERS), "getex": (KEYS, (b"ex", b"persist", b"x"), NUMBERS), "monitor": (),
    "config": ((b"get", b"set", b"x"), (b"*", b"maxmemory")), "slowlog": ((b"get", b"reset"),), "command": (),
    "object": ((b"encoding", b"freq", b"help"), KEYS), "acl": ((b"whoami", b"cat", b"list"),), "randomkey": (),
    "memory": ((b"usage", b"doctor"), KEYS), "bitfield": (KEYS, (b"get", b"set"), (b"u8", b"i64", b"u64"), NUMBERS),
}  # fmt: skip
"""Commands that only a server on its own is sent."""


def command(source: random.Random, templates: dict[str, tuple[Word, ...]]) -> list[bytes]:
    name = source.choice(list(templates))
    words = [source.choice((name, name.upper(), name.title())).encode(), *map(source.choice, templates[name])]
    if source.random() < 0.05:
        words.append(source.choice(VALUES))
    if source.random() < 0.05 and len(words) > 1:
        words.pop()
    return words


def framed(words: Sequence[bytes], source: random.Random) -> bytes:
    """As an array, or as a line if that can say it."""
    if source.random() < 0.15 and all(word and not set(word) & set(b"\r\n\0'\" \\") for word in words):
        return b" ".join(words) + source.choice((b"\r\n", b"\n"))
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def conversation(source: random.Random, templates: dict[str, tuple[Word, ...]]) -> bytes:
    return b"".join(framed(command(source, templates), source) for _ in range(source.randrange(1, 12)))


def _place(data: bytes, source: random.Random) -> int:
    return source.randrange(len(data) + 1)


def _flip(data: bytes, source: random.Random) -> bytes:
    at = _place(data, source)
    return data[:at] + bytes((byte ^ 1 << source.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]


def _insert(data: bytes, source: random.Random) -> bytes:
    at = _place(data, source)
    return data[:at] + source.choice((b"\x00", b"$", b"*", b"\r\n", b"-1", b"'", b'"', source.randbytes(3))) + data[at:]


def _delete(data: bytes, source: random.Random) -> bytes:
    at = _place(data, source)
    return data[:at] + data[at + source.choice((1, 1, 2, 10)) :]


def _double(data: bytes, source: random.Random) -> bytes:
    first, last = sorted((_place(data, source), _place(data, source)))
    return data[:last] + data[first:last] + data[last:]


def _cut(data: bytes, source: random.Random) -> bytes:
    return data[: _place(data, source)]


def _line_end(data: bytes, source: random.Random) -> bytes:
    lines = data.split(b"\r\n")
    at = source.randrange(len(lines))
    return b"\r\n".join(lines[:at]) + source.choice(LINE_ENDS) + b"\r\n".join(lines[at:])


def _header(data: bytes, source: random.Random) -> bytes:
    """Another count or length."""
    lines = data.split(b"\r\n")
    places = [number for number, line in enumerate(lines) if line[:1] in (b"*", b"$")]
    if places:
        at = source.choice(places)
        lines[at] = lines[at][:1] + source.choice(HEADERS)
    return b"\r\n".join(lines)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _insert, _delete, _double, _cut, _line_end, _header,
)  # fmt: skip


def stream(source: random.Random, *, alone: bool) -> bytes:
    """One connection's bytes: a conversation, mostly damaged, sometimes with another in its middle.

    Args:
        source: chance.
        alone: whether the server's answers are compared with nobody's, so that any command will do.
    """
    templates = TEMPLATES | OTHERS if alone else TEMPLATES
    data = conversation(source, templates)
    if source.random() < 0.1:
        at = _place(data, source)
        data = data[:at] + conversation(source, templates) + data[at:]
    for _ in range(source.choice((0, 1, 1, 2, 5))):
        data = source.choice(MUTATIONS)(data, source)
    return data
