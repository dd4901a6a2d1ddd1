"""Transactions: all or nothing, and nobody in between."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import kvclient
from kvclient.errors import (
    PipelineError,
    ServerError,
    TransactionAbortedError,
    TransactionConflictError,
)
from tests.client.conftest import FakeServer, Peer


def test_commands_run_together_at_the_end(kv: kvclient.Client) -> None:
    with kv.transaction() as t:
        stored = t.set("a", 1)
        counted = t.incr("a")
        assert kv.get("a") is None
    assert (stored.result(), counted.result()) == (True, 2)
    with kv.transaction():
        pass  # nothing to send


def test_an_exception_in_the_block_sends_nothing(kv: kvclient.Client) -> None:
    with pytest.raises(KeyError), kv.transaction() as t:  # noqa: PT012 - the block's end sends
        t.set("a", 1)
        raise KeyError
    assert kv.get("a") is None


def test_a_command_that_fails_does_not_hide_the_others(kv: kvclient.Client) -> None:
    kv.set("text", "abc")
    with pytest.raises(PipelineError) as failed, kv.transaction() as t:
        one, bad, two = t.set("a", 1), t.incr("text"), t.incr("a")
    assert (one.result(), two.result()) == (True, 2)
    assert isinstance(bad.error(), ServerError)
    assert failed.value.results[1] is bad.error()


def test_a_command_that_is_refused_keeps_all_from_running(kv: kvclient.Client) -> None:
    with pytest.raises(TransactionAbortedError) as refused, kv.transaction() as t:  # noqa: PT012 - the block's end sends
        one = t.set("a", 1)
        t.execute("GET")
    assert isinstance(refused.value.__cause__, ServerError)
    assert isinstance(one.error(), TransactionAbortedError)
    assert kv.get("a") is None
    assert kv.incr("a") == 1  # the connection goes on being used


def test_a_long_one(kv: kvclient.Client) -> None:
    big = b"x" * 100_000
    with kv.transaction() as t:
        echoes = [t.echo(big) for _ in range(100)]
        numbers = [t.incr("n") for _ in range(5000)]
    assert all(echo.result() == big for echo in echoes)
    assert [number.result() for number in numbers] == list(range(1, 5001))


def test_what_was_read_still_holds_when_it_runs(kv: kvclient.Client) -> None:
    kv.set("n", 1)
    calls = 0

    def double(t: kvclient.WatchingTransaction) -> int:
        nonlocal calls
        calls += 1
        seen = int(t.now.get("n") or 0)
        if calls == 1:
            kv.set("n", 10)  # somebody else
        t.set("n", seen * 2)
        return seen

    assert kv.transaction(double, watch=["n"]) == 10
    assert (kv.get("n"), calls) == (b"20", 2)


def test_queueing_nothing_forgets_the_keys(kv: kvclient.Client) -> None:
    assert kv.transaction(lambda t: t.now.get("n"), watch=["n"]) is None
    kv.set("n", 1)
    with kv.transaction() as t:
        t.incr("n")
    assert kv.get("n") == b"2"


def test_an_error_in_the_work_leaves_no_watching_connection(kv: kvclient.Client) -> None:
    def fail(t: kvclient.WatchingTransaction) -> None:
        t.now.get("n")
        raise KeyError

    with pytest.raises(KeyError):
        kv.transaction(fail, watch=["n"])
    with pytest.raises(ServerError):
        kv.transaction(lambda t: t.now.incrby("n", "x"), watch=["n"])  # type: ignore[arg-type]
    kv.set("n", 1)
    with kv.transaction() as t:
        t.incr("n")
    assert kv.get("n") == b"2"


def test_always_being_too_late_is_told_in_the_end(kv: kvclient.Client) -> None:
    def always_late(t: kvclient.WatchingTransaction) -> None:
        kv.incr("n")
        t.set("m", 1)

    with pytest.raises(TransactionConflictError, match="changed by somebody else"):
        kv.transaction(always_late, watch=["n"], timeout=0.2)
    assert kv.get("m") is None


def test_transfers_keep_their_sum(kv: kvclient.Client) -> None:
    kv.mset({"a": 100, "b": 100})
    start = threading.Barrier(4)

    def move(t: kvclient.WatchingTransaction) -> None:
        a, b = t.now.mget("a", "b")
        t.mset({"a": int(a or 0) - 1, "b": int(b or 0) + 1})

    def work() -> None:
        start.wait()
        for _ in range(25):
            kv.transaction(move, watch=["a", "b"], timeout=60)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kv.mget("a", "b") == [b"0", b"200"]


def test_work_that_takes_its_time(fake: Callable[..., FakeServer]) -> None:
    """The time for a reply begins when it is asked for, not when the transaction did."""

    def slow(peer: Peer) -> None:
        peer.greet()
        peer.answer(b"+OK\r\n")
        peer.read()
        threading.Event().wait(0.05)  # longer than the client asks the kernel to wait at a time
        peer.sock.sendall(b"+OK\r\n")

    with kvclient.connect(fake(slow).url, timeout=0.2) as kv:
        assert kv.transaction(lambda _: threading.Event().wait(0.3), watch=["k"]) is False
