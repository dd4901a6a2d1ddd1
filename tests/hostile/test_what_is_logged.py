"""What hostile clients can make the server log: one line a minute of each kind, and nothing of what they sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hostile.conftest import Besiege
from hostile.siege import request

from kvserver.commands.registry import DIRECT
from kvserver.observe.log import rate_limit
from kvserver.store.memory import Database


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", "connection.cross_protocol"),
        (b"Host: x\r\n", "connection.cross_protocol"),
        (b"*x\r\n", "connection.protocol_error"),
        (b"A" * 70_000, "connection.protocol_error"),
    ],
    ids=["17 POST", "17 Host", "an array's length", "a long line"],
)
def test_a_flood_is_one_line_a_minute(
    besiege: Besiege, monkeypatch: pytest.MonkeyPatch, data: bytes, event: str
) -> None:
    with besiege(log_lines=2) as siege:
        now = [1000.0]
        monkeypatch.setattr(rate_limit, "_clock", lambda: now[0])
        for _ in range(50):
            siege.arena.answer(data)
        assert [event in line for line in siege.log()] == [True]
        now[0] += 60
        siege.arena.answer(data)
        assert len(siege.log()) == 2
        assert event in siege.log()[1]
        assert "left_out=49" in siege.log()[1]


SECRET = b"hunter2-secret"
TELLING = [
    [b"AUTH", SECRET], [b"AUTH", b"default", SECRET], [b"AUTH", SECRET, SECRET],
    [b"HELLO", b"3", b"AUTH", b"x", SECRET], [b"HELLO", b"3", b"SETNAME", SECRET + b" "], [b"HELLO", SECRET],
    [b"SET", SECRET], [b"SET", b"k", SECRET, b"BAD"], [SECRET, b"x"], [b"GET", SECRET, SECRET], [b"CLIENT", SECRET],
    [b"INCRBY", SECRET, SECRET], [b"CONFIG", b"SET", b"requirepass", SECRET], [b"CLIENT", b"SETNAME", SECRET + b" "],
    [b"CLIENT", b"SETINFO", b"LIB-NAME", SECRET + b" "], [b"CLIENT", b"KILL", SECRET],
    [b"POST", SECRET], [b"PUT", SECRET], [b"EXPIRE", SECRET, SECRET], [b"SCAN", SECRET], [b"SUBSCRIBE", SECRET],
    [b"PUBLISH", SECRET, SECRET], [b"EVAL", SECRET, b"0"], [b"DEBUG", SECRET], [b"OBJECT", SECRET, SECRET],
]  # fmt: skip
BROKEN = [
    b"*2\r\n$3\r\nSET\r\n$x" + SECRET + b"\r\n",
    b"*" + SECRET + b"\r\n",
    b"*1\r\n" + SECRET + b"\r\n",
    b"*2\r\n$3\r\nGET\r\n$3\r\n" + SECRET + b"\r\n",
    b"'" + SECRET + b"\r\n",
    b'"' + SECRET + b'"' + SECRET + b"\r\n",
    SECRET * 10_000,
]


@pytest.mark.parametrize("data", [*(request(*words) for words in TELLING), *BROKEN], ids=lambda data: repr(data[:50]))
def test_no_secret_reaches_the_log(besiege: Besiege, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    """Each with a log of its own: one line a minute would hide what the others say."""
    with besiege(log_lines=2) as siege:
        caplog.set_level("DEBUG", "kvserver")
        siege.arena.answer(data)
        if data in BROKEN or data == request(b"POST", SECRET):
            assert siege.log()
        assert SECRET.decode() not in caplog.text


def test_nor_what_a_defect_says_of_its_data(
    besiege: Besiege, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_database: Database, key: bytes) -> None:
        raise ValueError(key) from KeyError(key)

    with besiege() as siege:
        with monkeypatch.context() as patch:
            patch.setitem(DIRECT, b"STRLEN", replace(DIRECT[b"STRLEN"], handler=fail))
            replies = [siege.arena.ask(b"STRLEN", SECRET) for _ in range(20)]
        assert {reply[:5] for reply in replies} == {b"-ERR "}
        assert all(SECRET not in reply for reply in replies)
        assert ["command.defect" in line for line in siege.log()] == [True]
        assert "ValueError" in siege.log()[0]
        assert SECRET.decode() not in caplog.text
