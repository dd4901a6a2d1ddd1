"""Hostile input, rows 1 to 5 and 10 to 17: bytes that are no commands, or nearly.

The number before a case is its row in the project's list of hostile inputs.
"""

from __future__ import annotations

import pytest
from hostile.siege import Siege, read_all, request

PING = request(b"PING")
MARKER = request(b"ECHO", b"still here")
SURVIVED = b"$10\r\nstill here\r\n"
PONG = b"+PONG\r\n"


def fault(text: str) -> bytes:
    return b"-ERR Protocol error: " + text.encode() + b"\r\n"


COUNT, LENGTH, CRLF = fault("invalid multibulk length"), fault("invalid bulk length"), fault("invalid CRLF in request")
QUOTES = fault("unbalanced quotes in request")


def unknown(name: bytes, arguments: bytes = b"") -> bytes:
    return b"-ERR unknown command '%b', with args beginning with: %b\r\n" % (name, arguments)


SURVIVES: dict[str, tuple[bytes, bytes]] = {
    "1 empty line": (b"\r\n" + PING, PONG),
    "1 empty array": (b"*0\r\n" + PING, PONG),
    "1 null array": (b"*-1\r\nPING\r\n", PONG),
    "1 negative array": (b"*-10\r\n" + PING, PONG),
    "1 a hundred thousand of nothing": (b"\r\n*0\r\n*-1\r\n" * 100_000 + PING, PONG),
    "2 a length outside an array": (b"*0\r\n$5\r\nPING\r\n", unknown(b"$5") + PONG),
    "13 inline with a line feed": (b"PING\n", PONG),
    "14 an integer as a line": (b":1\r\n", unknown(b":1")),
    "15 a reply inside a name": (request(b"AB\r\n+OK\r\nX"), unknown(b"AB  +OK  X")),
    "15 a name of a megabyte": (request(b"n" * 1_000_000), unknown(b"n" * 128)),
    "15 an argument with line ends": (request(b"foo", b"a\r\n-ERR b"), unknown(b"foo", b"'a  -ERR b' ")),
    "15 a name of bytes": (request(b"\xff\xfe\x01"), unknown(b"\xff\xfe\x01")),
    "16 escapes": (b'echo "\\x41\\n\\""\r\n', b'$3\r\nA\n"\r\n'),
    "16 very many words": (b"exists " + b"x " * 32_000 + b"\r\n", b":0\r\n"),
}
ENDS: dict[str, tuple[bytes, bytes]] = {
    **{f"3 count {count!r}": (b"*" + count + b"\r\n", COUNT) for count in (
        b"x", b"+1", b" 1", b"01", b"1_0", b"\xd9\xa1", b"1048577", b"1000000000", b"2147483648", b"9" * 20,
        b"9" * 5000,
    )},
    **{f"5 length {length!r}": (b"*2\r\n$3\r\nGET\r\n$" + length + b"\r\n", LENGTH) for length in (
        b"536870913", b"9223372036854775807", b"9" * 20, b"9" * 5000, b"-1", b"-5", b"x", b"+1", b"01", b"1_0",
    )},
    "10 no line end": (b"x" * 70_000, fault("too big inline request")),
    "10 a count without end": (b"*" + b"1" * 70_000, fault("too big mbulk count string")),
    "10 a length without end": (b"*1\r\n$" + b"1" * 70_000, fault("too big bulk count string")),
    "11 NUL for a count": (b"*\x00\r\n" + b"A" * 500_000, COUNT),
    "11 NUL for a length": (b"*1\r\n$\x00\r\n" + b"A" * 500_000, LENGTH),
    "11 NUL, then no end": (b"\x00" + b"A" * 500_000, fault("too big inline request")),
    "12 a bulk longer than announced": (b"*1\r\n$1\r\nabc\r\n", CRLF),
    "12 a bulk shorter than announced": (b"*1\r\n$5\r\nPING\r\n" + PING, CRLF),
    "13 an array with line feeds": (b"*1\n$4\nPING\n\r\n", COUNT),
    "14 an array in an array": (b"*1\r\n*1\r\n$4\r\nPING\r\n", fault("expected '$', got '*'")),
    "14 a simple string in an array": (b"*1\r\n+PING\r\n", fault("expected '$', got '+'")),
    "14 a map in an array": (b"*1\r\n%1\r\n", fault("expected '$', got '%'")),
    "16 an open quote": (b'set "abc def\r\n', QUOTES),
    "16 text after a quote": (b'"a"b\r\n', QUOTES),
    "17 POST": (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k posted\r\n", b""),
    "17 PUT": (b"PUT /k HTTP/1.1\r\nHost: x\r\n\r\nSET k posted\r\n", b""),
    "17 Host in a GET": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nSET k posted\r\n", b""),
    "17 Host after commands": (b"PING\r\nPING\r\nhOsT: x\r\nSET k posted\r\n", b""),
    "17 POST as an array": (request(b"POST", b"/") + request(b"SET", b"k", b"posted"), b""),
}  # fmt: skip


@pytest.mark.parametrize("case", SURVIVES)
def test_the_connection_survives(siege: Siege, case: str) -> None:
    data, expected = SURVIVES[case]
    assert siege.arena.answer(data + MARKER) == expected + SURVIVED
    assert not siege.log()


@pytest.mark.parametrize("case", ENDS)
def test_the_connection_ends(siege: Siege, case: str) -> None:
    """The client never closes its side: the server must. What follows the fault is not run."""
    data, expected = ENDS[case]
    assert siege.arena.answer(data + b"\r\n" + request(b"SET", b"k", b"run"), half_close=False) == expected
    assert siege.arena.ask(b"EXISTS", b"k") == b":0\r\n"


@pytest.mark.parametrize("case", ENDS)
def test_what_came_before_is_answered(siege: Siege, case: str) -> None:
    """Also when all of it arrives at once, and also that nothing of the fault shows in the log."""
    data, expected = ENDS[case]
    if expected:
        assert siege.arena.answer(PING * 3 + data + b"\r\n", half_close=False) == PONG * 3 + expected
        assert all("AAA" not in line and "999" not in line for line in siege.log())


def test_an_error_arrives_before_much_that_is_not_read(siege: Siege) -> None:
    """Closing a socket with unread input resets the connection, and the reset may overtake the error."""
    with siege.arena.connect() as sock:
        sock.sendall(b"*x\r\n" + b"A" * 900_000)
        assert read_all(sock) == COUNT


def test_4_two_hundred_clients_announce_much_and_fall_silent(siege: Siege) -> None:
    """Announcements of a million arguments, and of 512 MB each, cost no memory: the siege's end measures it."""
    arena = siege.arena
    announcements = (b"*1048576\r\n", b"*1048576\r\n$536870912\r\n", b"*2\r\n$3\r\nGET\r\n$536870912\r\n")
    socks = [arena.connect() for _ in range(200)]
    try:
        for number, sock in enumerate(socks):
            sock.sendall(announcements[number % 3])
        siege.bystander.is_served()
        before = b"tot-mem="
        listed = arena.ask(b"CLIENT", b"LIST")
        assert listed.count(before) == 202
        assert max(int(line.split(before)[1].split()[0]) for line in listed.splitlines() if before in line) < 1000
    finally:
        for sock in socks:
            sock.close()
