"""Raw bytes, mostly broken ones: what comes back and whether the connection survives, as in Valkey.

After each case a marker command follows: if it is answered, the connection has survived. The numbers of the cases are
those of the project's list of hostile inputs.
"""

from __future__ import annotations

import pytest
from conformance.oracle import PING, SURVIVED, Wire, answer, request

import kvserver


def bulk(header: bytes) -> bytes:
    return b"*1\r\n" + header + b"\r\n"


AS_VALKEY = {
    "1 empty line": b"\r\n" + PING,
    "1 empty array": b"*0\r\n" + PING,
    "1 null array": b"*-1\r\n" + PING,
    "1 negative array": b"*-10\r\nPING\r\n",
    "1 blank line": b"  \t \r\n" + PING,
    "2 a bulk outside an array": b"*0\r\n$4\r\nPING\r\n",
    **{f"3 count {count!r}": b"*" + count + b"\r\n" for count in (
        b"x", b"+1", b" 1", b"01", b"1_0", b"1 ", b"", b"-", b"-0", b"1\x00", b"2147483648", b"9" * 20, b"\xd9\xa1",
    )},
    **{f"5 length {length!r}": bulk(b"$" + length) for length in (
        b"536870913", b"9223372036854775807", b"9" * 20, b"-1", b"-5", b"x", b"", b"+1", b"01", b"1_0", b" 1", b"-0",
    )},
    "5 empty name": bulk(b"$0\r\n"),
    "11 NUL for a count": b"*\x00\r\n",
    "11 NUL for a length": bulk(b"$\x00"),
    "12 bulk longer than declared": b"*1\r\n$1\r\nabc\r\n" + PING,
    "12 bulk shorter than declared": b"*1\r\n$5\r\nPING\r\n" + PING + PING,
    "12 bulk without CRLF": b"*1\r\n$4\r\nPINGxx" + PING,
    "12 bulk with LF LF": b"*1\r\n$4\r\nPING\n\n" + PING,
    "13 inline with LF": b"PING\n",
    "13 count with LF": b"*1\n$4\nPING\n",
    "13 length with LF": b"*1\r\n$4\nPING\r\n",
    "13 count with CR": b"*1\r$4\r\nPING\r\n",
    "13 count with CR and more": b"*1\rx$4\r\nPING\r\n",
    "13 length with CR and more": b"*1\r\n$4\rxPING\r\n",
    "13 a wrong count with CR and more": b"*x\r\rPING\r\n",
    "13 a wrong length with CR and more": b"*1\r\n$x\r\rPING\r\n",
    "13 no length with CR and more": b"*1\r\n,4\r\rPING\r\n",
    "13 inline with CR inside": b"PI\rNG\r\n",
    "13 inline with CR CR": b"PING\r\r\n",
    "14 nested array": bulk(b"*1\r\n$4\r\nPING"),
    **{f"14 {kind!r} in an array": bulk(kind) for kind in (
        b"+PING", b":1", b"_", b"%1", b"\x00", b"\xff", b"", b"x", b"-ERR", b"#t", b"=8",
    )},
    **{f"14 {kind!r} as a line": kind + b"\r\n" for kind in (b"+PING", b":1", b"$4", b"_", b"%1", b"~1")},
    "15 line ends in a name": request([b"AB\r\n+OK\r\nX"]),
    "15 line ends in an argument": request([b"foo", b"a\r\nb"]),
    "15 long name": request([b"n" * 1_000_000]),
    **{f"15 argument of {size}": request([b"foo", b"y" * size, b"z" * 100]) for size in (0, 100, 126, 127, 128, 1000)},
    "15 many arguments": request([b"foo", *[b"a"] * 100]),
    "15 binary name": request([b"\xff\xfe\x00\x01", b"\x00", b"\xc3"]),
    "15 subcommand": request([b"CLIENT", b"\r\n" + b"s" * 200]),
    "16 open double quote": b'set "abc def\r\n',
    "16 open single quote": b"set 'abc def\r\n",
    "16 escaped end": b'echo "a\\\r\n',
    "16 escapes": b'echo "\\x41\\n\\r\\t\\b\\a\\"\\q\\xzz\\x4"\r\n',
    "16 escapes in single quotes": b"echo '\\x41\\'\\n\"'\r\n",
    "16 quote inside a word": b'echo a"b c"\r\n',
    "16 single quote inside a word": b"echo a'b c'\r\n",
    "16 empty words": b'echo ""\r\necho \'\'\r\n"" a\r\n',
    "16 many words": b"mget " + b"x " * 10_000 + b"\r\n",
    "16 blanks": b"\t ping \t\r\nping \v\f\r\n\vping\r\n",
    "17 POST": b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    "17 Host in a GET": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "17 POST as a command": request([b"post", b"/"]),
    "19 SETRANGE": b"SETRANGE k 4294967295 x\r\nSETRANGE k 9223372036854775807 x\r\nSETRANGE k -1 x\r\n",
    "20 INCR": b'SET k " 1"\r\nINCR k\r\nSET k 1_0\r\nINCR k\r\nSET k +1\r\nINCR k\r\n',
    "20 DECRBY": b"SET k 1\r\nDECRBY k -9223372036854775808\r\n",
    "20 INCRBYFLOAT": b"FLUSHALL\r\n" + b"".join(
        b"INCRBYFLOAT k " + number + b"\r\n" for number in (b"inf", b"nan", b"1e5000", b"1_0", b'" 1 "')
    ),
    "21 expiry": b"SET k v EX 9223372036854775807\r\nSET k v EX 0\r\nSET k v\r\nEXPIRE k 9223372036854775807\r\n",
    "21 expiry in the past": b"SET k v\r\nEXPIRE k -1\r\nEXISTS k\r\n",
    "22 KEYS": b"FLUSHALL\r\nSET " + b"a" * 200 + b" 1\r\nKEYS " + b"*a" * 30 + b"*b\r\n",
    "23 one key twice": b"FLUSHALL\r\nMSETNX d a d b\r\nGET d\r\nRENAME d d\r\nRENAMENX d d\r\nCOPY d d\r\n",
    "29 after QUIT": request([b"QUIT"]) + request([b"SET", b"after", b"quit"]),
    "29 after QUIT, inline": b"QUIT\r\nPING\r\n",
    "29 QUIT with words": request([b"QUIT", b"a", b"b"]) + PING,
}  # fmt: skip


@pytest.mark.parametrize("case", AS_VALKEY)
def test_as_valkey(server: kvserver.Server, valkey_port: int, case: str) -> None:
    data = AS_VALKEY[case]
    assert answer(server.port, data) == answer(valkey_port, data)


ENDLESS = {
    "line": (b"x" * 70_000, b"too big inline request"),
    "count": (b"*" + b"1" * 70_000, b"too big mbulk count string"),
    "length": (b"*1\r\n$" + b"1" * 70_000, b"too big bulk count string"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_an_endless_line_is_given_up(server: kvserver.Server, valkey_port: int, case: str) -> None:
    """Hostile input 10. Without an end, so there is no marker behind it."""
    data, fault = ENDLESS[case]
    for port in (server.port, valkey_port):
        with Wire(port) as wire:
            wire.send(data)
            assert wire.read() == b"-ERR Protocol error: %b\r\n" % fault


AS_REDIS_7 = {
    "a word touching a closing quote": b'set "a"b c\r\n',
    "a word touching a closing single quote": b"set 'a'b c\r\n",
    "two quoted parts": b'echo "a""b"\r\n',
    "the byte 255": b'echo "a\xffb"\r\necho \xff\r\n\xff\r\n',
}


@pytest.mark.parametrize("case", AS_REDIS_7)
def test_as_redis_7(server: kvserver.Server, redis_port: int, case: str) -> None:
    """In an inline command Valkey guesses at quotes that do not match, and drops bytes 255; Redis does not."""
    data = AS_REDIS_7[case]
    assert answer(server.port, data) == answer(redis_port, data)


OUR_OWN = {
    # More arguments than memory can be promised for are refused when announced.
    "4 count over the limit": (b"*1048577\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    # A browser tricked into talking to this port never gets to run a command, whatever its method.
    "17 PUT": (b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
    # A NUL ends an inline line; Valkey does not see the line's end behind it, and waits.
    "11 NUL in a line": (b"PING\x00x\r\n", b"+PONG\r\n" + SURVIVED),
    "11 NUL before a line": (b"\x00PING\r\n", SURVIVED),
    # A line may be 64 KiB long, whether or not its end has arrived with it.
    "10 long line": (b"x" * 65_537 + b"\r\n", b"-ERR Protocol error: too big inline request\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", OUR_OWN)
def test_otherwise_than_valkey_on_purpose(server: kvserver.Server, case: str) -> None:
    data, expected = OUR_OWN[case]
    assert answer(server.port, data) == expected


def test_what_follows_quit_is_not_run(server: kvserver.Server) -> None:
    answer(server.port, AS_VALKEY["29 after QUIT"] + request([b"SET", b"after", b"x" * 100_000]))
    with Wire(server.port) as wire:
        assert wire.ask("EXISTS", "after") == b":0\r\n"
