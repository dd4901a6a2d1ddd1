"""KV.ONCE: run once, however often it is sent; with its effect on disk, or not at all; bounded; and by permission."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conformance.oracle import Wire

import kvclient
import kvserver
from kvclient.errors import AuthError, OutOfMemoryError, ServerError

Ask = Callable[..., bytes]


@pytest.fixture
def ask(server: kvserver.Server) -> Iterator[Ask]:
    with Wire(server.port) as wire:
        yield wire.ask


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (("INCR", "n"), b":1\r\n"),
        (("SET", "k", "v"), b"+OK\r\n"),
        (("SET", "k", "v", "XX"), b"$-1\r\n"),
        (("GETSET", "old", b"\x00\xff"), b"$4\r\na\x80\r\n\r\n"),
        (("INCREX", "n", "UBOUND", "5"), b"*2\r\n:1\r\n:1\r\n"),
        (("INCRBYFLOAT", "n", "0.5"), b"$3\r\n0.5\r\n"),
        (("BITFIELD", "b", "INCRBY", "u2", 0, 1, "OVERFLOW", "FAIL", "INCRBY", "u2", 0, 9), b"*2\r\n:1\r\n$-1\r\n"),
        (("DEL", "old", "n"), b":1\r\n"),
        (("GETDEL", "old"), b"$4\r\na\x80\r\n\r\n"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_the_second_time_is_answered_as_the_first(ask: Ask, command: tuple[str | bytes, ...], reply: bytes) -> None:
    ask("SET", "old", b"a\x80\r\n")
    assert ask("KV.ONCE", "token", "10000", *command) == reply
    after = ask("MGET", "n", "k", "old", "b")
    assert ask("KV.ONCE", "token", "10000", *command) == reply
    assert ask("kv.once", "token", "1", str(command[0]).lower(), *command[1:]) == reply
    assert ask("MGET", "n", "k", "old", "b") == after
    assert ask("DEL", "kv:once:token") == b":1\r\n"  # an outcome is a key
    ask("KV.ONCE", "other", "10000", "INCR", "count")
    ask("KV.ONCE", "another", "10000", "INCR", "count")
    assert ask("GET", "count") == b"$1\r\n2\r\n"


def test_an_error_is_not_kept(ask: Ask) -> None:
    ask("SET", "n", "text")
    assert ask("KV.ONCE", "t", "10000", "INCR", "n").startswith(b"-ERR value is not an integer")
    ask("DEL", "n")
    assert ask("KV.ONCE", "t", "10000", "INCR", "n") == b":1\r\n"


def test_what_it_refuses(ask: Ask) -> None:
    reused = b"-ERR this token was used for another command"
    ask("KV.ONCE", "t", "10000", "INCR", "n")
    assert ask("KV.ONCE", "t", "10000", "INCR", "m").startswith(reused)
    assert ask("KV.ONCE", "t", "10000", "DECR", "n").startswith(reused)
    ask("SET", "kv:once:t", '{"of":1}')
    assert ask("KV.ONCE", "t", "10000", "INCR", "n").startswith(reused)
    for words in (("GET", "n"), ("FLUSHALL",), ("PUBLISH", "c", "m"), ("KV.ONCE", "x", "1", "INCR", "n"), ("MULTI",)):
        assert ask("KV.ONCE", "u", "10000", *words).startswith(b"-ERR KV.ONCE runs commands that change keys")
    assert ask("KV.ONCE", "u", "10000", "NONSENSE").startswith(b"-ERR unknown command 'NONSENSE'")
    assert ask("KV.ONCE", "u", "10000", "INCR").startswith(b"-ERR wrong number of arguments for 'incr'")
    for token, milliseconds in (("", "1"), ("t" * 129, "1"), ("u", "0"), ("u", "-1"), ("u", "86400001")):
        assert ask("KV.ONCE", token, milliseconds, "INCR", "n").startswith(b"-ERR a token has 1 to 128 bytes")
    assert ask("KV.ONCE", "u", "x", "INCR", "n").startswith(b"-ERR value is not an integer")
    assert ask("GET", "n") == b"$1\r\n1\r\n"


def test_in_a_transaction(ask: Ask) -> None:
    for _ in range(2):
        ask("MULTI")
        ask("KV.ONCE", "t", "10000", "INCR", "n")
        assert ask("EXEC") == b"*1\r\n:1\r\n"


def test_at_the_same_time(server: kvserver.Server) -> None:
    start = threading.Barrier(8)
    replies: list[object] = []

    def run() -> None:
        with kvclient.connect(server.url) as kv:
            for number in range(50):
                start.wait(10)
                replies.append((number, kv.kv_once(f"token-{number}", 10_000, "INCR", "n")))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(replies) == {(number, number + 1) for number in range(50)}


def test_what_fails_uses_nothing_up() -> None:
    with kvserver.Server(port=0, once_max_outcomes=3) as server, kvclient.connect(server.url) as kv:
        kv.set("text", "abc")
        for number in range(10):
            with pytest.raises(ServerError, match="not an integer"):
                kv.execute("KV.ONCE", f"t{number}", 60_000, "INCR", "text")
        assert kv.execute("KV.ONCE", "good", 60_000, "INCR", "n") == 1


def test_outcomes_end_and_are_bounded() -> None:
    now = 1_000_000
    with (
        kvserver.Server(port=0, once_max_outcomes=3, clock=lambda: now) as server,
        kvclient.connect(server.url) as kv,
    ):
        for number in range(3):
            kv.kv_once(str(number), 1000, "INCR", "n")
        with pytest.raises(ServerError, match="once-max-outcomes"):
            kv.kv_once("3", 1000, "INCR", "n")
        assert kv.kv_once("2", 1000, "INCR", "n") == 3  # what is kept is answered
        now += 1001
        assert kv.kv_once("0", 1000, "INCR", "n") == 4  # it has ended, so this is a new one


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-ttl"])
def test_outcomes_are_not_evicted(policy: str) -> None:
    with (
        kvserver.Server(port=0, maxmemory=300_000, maxmemory_policy=policy) as server,
        kvclient.connect(server.url) as kv,
    ):
        for number in range(20):
            kv.kv_once(str(number), 60_000, "INCR", "n")
        with kv.pipeline() as p:
            for number in range(5000):
                p.set(f"key:{number}", b"x" * 100, ttl=3600)
        assert int(kv.info("stats")["evicted_keys"]) > 1000
        assert [kv.kv_once(str(number), 60_000, "INCR", "n") for number in range(20)] == list(range(1, 21))


def test_outcomes_count_as_memory() -> None:
    with kvserver.Server(port=0, maxmemory=100_000) as server, kvclient.connect(server.url) as kv:
        with pytest.raises(OutOfMemoryError):  # noqa: PT012 - any of them
            for number in range(1000):
                kv.kv_once(str(number), 60_000, "INCR", "n")
        assert int(kv.info("memory")["used_memory"]) < 110_000


def test_effect_and_outcome_are_one_batch_of_the_journal(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    with kvserver.Server(port=0, data_dir=path) as server, kvclient.connect(server.url) as kv:
        assert kv.kv_once("t", 60_000, "INCR", "n") == 1
        (increment,) = (tmp_path / "data" / "appendonlydir").glob("*.incr.aof")
        written = increment.read_bytes()
    batch = written[written.index(b"MULTI") :]
    assert batch.index(b"MULTI") < batch.index(b"kv:once:t") < batch.index(b"EXEC")
    assert batch.index(b"$1\r\nn\r\n") < batch.index(b"EXEC")
    with kvserver.Server(port=0, data_dir=path) as server, kvclient.connect(server.url) as kv:
        assert kv.kv_once("t", 60_000, "INCR", "n") == 1
        assert kv.get("n") == b"1"
        kv.bgrewriteaof()
    with kvserver.Server(port=0, data_dir=path) as server, kvclient.connect(server.url) as kv:
        assert kv.kv_once("t", 60_000, "INCR", "n") == 1


def test_a_user_needs_what_the_command_needs(server: kvserver.Server) -> None:
    with kvclient.connect(server.url) as kv:
        kv.acl_setuser("ann", "on", ">secret", "~a:*", "+incr", "+kv.once")
        with kvclient.connect(server.url, username="ann", password="secret") as ann:
            assert ann.kv_once("1", 1000, "INCR", "a:n") == 1
            for words in (("INCR", "b:n"), ("DECR", "a:n"), ("GETDEL", "a:n")):
                with pytest.raises(AuthError, match="NOPERM"):
                    ann.kv_once("2", 1000, *words)
        with Wire(server.port) as wire:  # too few arguments are an error, also for those who may not do everything
            assert wire.ask("AUTH", "ann", "secret") == b"+OK\r\n"
            for command in ("MSETEX", "RENAME", "INCR"):
                assert wire.ask("KV.ONCE", "t", 1000, command).startswith(b"-ERR wrong number of arguments")
        kv.acl_setuser("ann", "-kv.once")
        with (
            kvclient.connect(server.url, username="ann", password="secret") as ann,
            pytest.raises(AuthError, match=r"kv\.once"),
        ):
            ann.kv_once("3", 1000, "INCR", "a:n")
        assert kv.acl_dryrun("ann", "KV.ONCE", "1", "1000", "INCR", "b:n") != b"OK"
        assert kv.get("a:n") == b"1"
