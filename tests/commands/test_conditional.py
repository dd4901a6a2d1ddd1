"""SET's newer conditions, DELEX, DIGEST and INCREX, which no installable server has: after their documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from conformance.oracle import Wire

import kvserver
from kvserver.commands import conditional

Ask = Callable[[str], bytes]
HELLO_WORLD = b"b6acb9d84a38ff74"  # the digest of "Hello world" in Redis' documentation of DIGEST
NIL, OK = b"$-1\r\n", b"+OK\r\n"
SYNTAX = b"-ERR syntax error\r\n"
NO_INTEGER = b"-ERR value is not an integer or out of range\r\n"
MAX, MIN = 2**63 - 1, -(2**63)


@pytest.fixture
def ask(server: kvserver.Server) -> Iterator[Ask]:
    with Wire(server.port) as wire:
        yield lambda line: wire.ask(*(word.replace("_", " ") for word in line.split(" ")))


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def numbers(*values: int) -> bytes:
    return b"*%d\r\n" % len(values) + b"".join(b":%d\r\n" % value for value in values)


def test_digest(ask: Ask) -> None:
    assert ask("DIGEST k") == NIL
    ask("SET k Hello_world")
    assert ask("DIGEST k") == bulk(HELLO_WORLD)
    ask("SET k ")
    assert ask("DIGEST k") == bulk(b"2d06800538d394c2")  # XXH3-64 of nothing, from its specification
    assert ask("DIGEST").startswith(b"-ERR wrong number")


def test_set_if_equal_and_if_not(ask: Ask) -> None:
    assert ask("SET k a IFEQ x") == NIL  # a missing key is not created
    assert ask("SET k a IFNE x") == OK  # and here it is
    assert ask("SET k b IFNE a") == NIL
    assert ask("SET k b IFNE a GET") == bulk(b"a")  # the old value, whether or not it was set
    assert ask("GET k") == bulk(b"a")
    assert ask("SET k b IFEQ a GET") == bulk(b"a")
    assert ask("GET k") == bulk(b"b")
    assert ask("SET new b IFNE a GET") == NIL
    assert ask("GET new") == bulk(b"b")
    assert ask("SET k c IFNE a EX 100") == OK
    assert ask("TTL k") == b":100\r\n"
    assert ask("SET k d IFNE a KEEPTTL") == OK
    assert ask("TTL k") == b":100\r\n"
    assert ask("SET k e IFNE a") == OK
    assert ask("TTL k") == b":-1\r\n"


def test_set_by_digest(ask: Ask) -> None:
    hello = HELLO_WORLD.decode()
    assert ask(f"SET k Hello_world IFDEQ {hello}") == NIL
    assert ask(f"SET k Hello_world IFDNE {hello}") == OK
    assert ask(f"SET k other IFDNE {hello}") == NIL
    assert ask(f"SET k other IFDEQ {hello.upper()}") == OK
    assert ask(f"SET k other IFDEQ {hello}") == NIL
    for wrong in ("", "b6acb9d84a38ff7", "b6acb9d84a38ff740", "g6acb9d84a38ff74"):
        assert ask(f"SET k v IFDEQ {wrong}") == b"-ERR a digest has exactly 16 hexadecimal digits\r\n"
    assert ask("GET k") == bulk(b"other")


@pytest.mark.parametrize(
    "options",
    [
        "NX IFNE a", "IFEQ a IFNE b", "XX IFDEQ b6acb9d84a38ff74", "IFDEQ b6acb9d84a38ff74 IFDNE b6acb9d84a38ff74",
        "IFNE", "IFDEQ", "IFEQ a IFEQ b", "NX IFDNE b6acb9d84a38ff74",
    ],
)  # fmt: skip
def test_conditions_exclude_each_other(ask: Ask, options: str) -> None:
    assert ask(f"SET k v {options}") == SYNTAX
    assert ask("EXISTS k") == b":0\r\n"


def test_delex(ask: Ask) -> None:
    hello = HELLO_WORLD.decode()
    for condition in ("", " IFEQ a", " IFNE a", f" IFDEQ {hello}", f" IFDNE {hello}"):
        assert ask(f"DELEX k{condition}") == b":0\r\n"
    for condition, deleted in (
        ("IFEQ x", 0), ("IFEQ Hello_world", 1), ("IFNE Hello_world", 0), ("IFNE x", 1), (f"IFDEQ {hello}", 1),
        ("IFDEQ 0000000000000000", 0), (f"IFDNE {hello}", 0), ("ifdne 0000000000000000", 1),
    ):  # fmt: skip
        ask("SET k Hello_world")
        assert ask(f"DELEX k {condition}") == b":%d\r\n" % deleted
        assert ask("EXISTS k") == b":%d\r\n" % (1 - deleted)
    ask("SET k v")
    for wrong in ("NX", "XX", "IFEQ", "IFEQ v IFEQ v", "FOO v"):
        assert ask(f"DELEX k {wrong}") == SYNTAX
    assert ask("DELEX k") == b":1\r\n"


def test_without_the_package_the_error_says_what_to_install(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    ask("SET k v")
    monkeypatch.setattr(conditional, "_xxh3", None)
    wanted = b"-ERR digests need the Python package xxhash on the server: pip install 'kvserver[digest]'\r\n"
    assert ask("DIGEST k") == wanted
    assert ask("SET k x IFDEQ b6acb9d84a38ff74") == wanted
    assert ask("DELEX k IFDNE b6acb9d84a38ff74") == wanted
    assert ask("GET k") == bulk(b"v")


def test_increx_counts(ask: Ask) -> None:
    assert ask("INCREX k") == numbers(1, 1)
    assert ask("INCREX k BYINT 5") == numbers(6, 5)
    assert ask("INCREX k byint -7") == numbers(-1, -7)
    assert ask("GET k") == bulk(b"-1")
    assert ask("INCREX k BYFLOAT 0.5") == b"*2\r\n" + bulk(b"-0.5") + bulk(b"0.5")
    assert ask("INCREX k BYFLOAT 3.0e3") == b"*2\r\n" + bulk(b"2999.5") + bulk(b"3000")
    assert ask("INCREX k") == NO_INTEGER
    assert ask("INCREX new BYFLOAT 1") == b"*2\r\n" + bulk(b"1") + bulk(b"1")
    assert ask("INCREX new") == numbers(2, 1)


def test_increx_stays_within_bounds(ask: Ask) -> None:
    assert ask("INCREX k UBOUND 2") == numbers(1, 1)
    assert ask("INCREX k UBOUND 2") == numbers(2, 1)
    assert ask("INCREX k UBOUND 2") == numbers(2, 0)
    assert ask("INCREX k BYINT 100 UBOUND 10") == numbers(2, 0)
    assert ask("INCREX k BYINT 100 UBOUND 10 SATURATE") == numbers(10, 8)
    assert ask("INCREX k BYINT -100 LBOUND 0 SATURATE") == numbers(0, -10)
    assert ask("INCREX k BYINT 1 LBOUND 5 UBOUND 9") == numbers(0, 0)
    assert ask("INCREX k BYINT 1 LBOUND 5 UBOUND 9 SATURATE") == numbers(5, 5)
    assert ask("INCREX none BYINT 1 LBOUND 5") == numbers(0, 0)
    assert ask("EXISTS none") == b":0\r\n"
    assert ask("INCREX f BYFLOAT 2.5 UBOUND 2 SATURATE") == b"*2\r\n" + bulk(b"2") + bulk(b"2")
    assert ask("INCREX f BYFLOAT 0.25 UBOUND 2.125") == b"*2\r\n" + bulk(b"2") + bulk(b"0")
    assert ask("INCREX k LBOUND 3 UBOUND 2") == b"-ERR LBOUND must not exceed UBOUND\r\n"


def test_increx_at_the_ends_of_the_type(ask: Ask) -> None:
    ask(f"SET k {MAX}")
    assert ask("INCREX k") == numbers(MAX, 0)
    assert ask("INCREX k SATURATE") == numbers(MAX, 0)
    assert ask(f"INCREX k BYINT {MIN}") == numbers(-1, MIN)
    ask(f"SET k {MAX - 1}")
    assert ask("INCREX k BYINT 5 SATURATE") == numbers(MAX, 1)
    assert ask("INCREX k BYINT 1 UBOUND -5 SATURATE") == b"-ERR increment or decrement would overflow\r\n"
    assert ask("GET k") == bulk(b"%d" % MAX)
    ask("SET f 1e4932")
    assert ask("INCREX f BYFLOAT 1e4932").endswith(bulk(b"0"))
    for wrong in ("inf", "-inf", "nan", "1_0", "x"):
        assert ask(f"INCREX f BYFLOAT {wrong}").startswith(b"-ERR ")
    assert ask(f"INCREX k BYINT {MAX + 1}") == NO_INTEGER


def test_increx_and_the_time_to_live(ask: Ask) -> None:
    ask("INCREX k EX 100 ENX")
    assert ask("TTL k") == b":100\r\n"
    ask("INCREX k EX 500 ENX")
    ask("INCREX k")
    assert ask("TTL k") == b":100\r\n"
    ask("INCREX k PX 500000")
    assert ask("TTL k") == b":500\r\n"
    ask("INCREX k UBOUND 1 EX 900")  # nothing is stored, so nothing is set
    assert ask("TTL k") == b":500\r\n"
    ask("INCREX k UBOUND 4 SATURATE EX 900")
    ask("INCREX k UBOUND 4 SATURATE EX 800")  # adds 0, and sets it all the same
    assert ask("TTL k") == b":800\r\n"
    ask("INCREX k PERSIST")
    assert ask("TTL k") == b":-1\r\n"
    ask("INCREX k EXAT 9999999999")
    assert ask("EXPIRETIME k") == b":9999999999\r\n"
    ask("INCREX k PXAT 1")
    assert ask("EXISTS k") == b":0\r\n"


@pytest.mark.parametrize(
    "options",
    [
        "ENX", "ENX PERSIST", "EX 10 PX 10", "EX 10 PERSIST", "PERSIST EX 10", "BYINT 1 BYFLOAT 1", "BYINT", "LBOUND",
        "EX", "FOO", "UBOUND 1 UBOUND 2", "PERSIST ENX",
    ],
)  # fmt: skip
def test_increx_syntax(ask: Ask, options: str) -> None:
    assert ask(f"INCREX k {options}") == SYNTAX
    assert ask("EXISTS k") == b":0\r\n"


@pytest.mark.parametrize("time", ["EX 0", "EX -1", f"EX {MAX}", "PX 0"])
def test_increx_refuses_impossible_times(ask: Ask, time: str) -> None:
    assert ask(f"INCREX k {time}") == b"-ERR invalid expire time in 'increx' command\r\n"
    assert ask("EXISTS k") == b":0\r\n"
