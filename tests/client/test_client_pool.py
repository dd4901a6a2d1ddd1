"""The pool: bounded, waiting, fair, fork-safe, and nothing lost whatever is raised where."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import kvclient
from kvclient.connection import Connection
from kvclient.errors import CannotConnectError, ClientClosedError, ConnectionLostError, PoolTimeoutError
from kvclient.pool import Pool
from tests.client.conftest import FakeServer

Make = Callable[..., FakeServer]


def soon() -> float:
    return time.monotonic() + 5


def test_the_last_used_connection_is_used_next_and_no_more_are_opened(own_url: str) -> None:
    with kvclient.connect(own_url) as kv:
        ids = {kv.client_id() for _ in range(20)}
        assert len(ids) == 1
        assert len(kv._pool) == 1


def test_it_is_bounded_and_a_call_waits_until_its_deadline(own_url: str) -> None:
    with kvclient.connect(own_url, max_connections=2, timeout=0.05) as kv:
        held = [kv._pool.take(soon()), kv._pool.take(soon())]
        with pytest.raises(PoolTimeoutError, match="max_connections") as raised:
            kv.ping()
        assert raised.value.applied == "no"
        for connection in held:
            kv._pool.give(connection)
        assert kv.ping() == b"PONG"
        assert len(kv._pool) == 2


def test_waiters_are_served_in_order(own_url: str) -> None:
    with kvclient.connect(own_url, max_connections=1) as kv:
        pool, order = kv._pool, []
        held = pool.take(soon())

        def work(number: int) -> None:
            connection = pool.take(soon())
            order.append(number)
            pool.give(connection)

        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            while len(pool._waiters) <= number:
                os.sched_yield()
        pool.give(held)
        for thread in threads:
            thread.join()
        assert order == [0, 1, 2, 3, 4]


def test_four_connections_under_many_threads_mix_nothing_up(own_url: str) -> None:
    with kvclient.connect(own_url, max_connections=4) as kv, ThreadPoolExecutor(60) as threads:
        kv.delete("n")

        def work(number: int) -> None:
            for turn in range(10):
                message = f"{number}.{turn}".encode()
                assert kv.echo(message) == message
                kv.incr("n")

        for done in [threads.submit(work, number) for number in range(60)]:
            done.result()
        assert kv.get("n") == b"600"
        assert len(kv._pool) <= 4
        assert not kv._pool._waiters


def test_a_connection_given_back_after_a_waiter_left_is_not_lost(own_url: str) -> None:
    with kvclient.connect(own_url, max_connections=1) as kv:
        held = kv._pool.take(soon())
        for _ in range(3):
            with pytest.raises(PoolTimeoutError):
                kv._pool.take(time.monotonic() + 0.01)
        kv._pool.give(held)
        assert kv._pool.take(soon()) is held
        kv._pool.give(held)


def test_a_lost_connection_frees_its_place_even_for_a_waiter(own_url: str) -> None:
    with kvclient.connect(own_url, max_connections=1) as kv:
        holder = [kv._pool.take(soon())]
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(kv.ping)
            while not kv._pool._waiters:
                os.sched_yield()
            holder.clear()  # as if KeyboardInterrupt had come before anybody could hold on to it
            gc.collect()
            assert waiting.result(5) == b"PONG"


def test_a_dropped_connection_lets_a_waiter_open_another(own_url: str) -> None:
    with kvclient.connect(own_url, max_connections=1) as kv, ThreadPoolExecutor(1) as threads:
        held = kv._pool.take(soon())
        waiting = threads.submit(kv.client_id)
        while not kv._pool._waiters:
            os.sched_yield()
        kv._pool.drop(held)
        assert waiting.result(5) > 0


@pytest.mark.parametrize("place", ["_send", "_recv", "_take"])
@pytest.mark.parametrize("after", [False, True])
def test_keyboard_interrupt_in_a_call_costs_its_connection_and_nothing_else(
    own_url: str, place: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply that was under way is read by nobody."""
    original = getattr(Connection, place)

    def interrupted(*args: object) -> object:
        if after:
            original(*args)
        raise KeyboardInterrupt

    with kvclient.connect(own_url, max_connections=1) as kv:
        kv.set("k", "v" * 5000)
        first = kv.client_id()
        monkeypatch.setattr(Connection, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            kv.get("k")
        monkeypatch.undo()
        assert kv.echo("mine") == b"mine"
        assert kv.client_id() != first
        assert len(kv._pool) == 1


def test_a_bug_in_a_converter_costs_the_connection_too(own_url: str) -> None:
    with kvclient.connect(own_url) as kv:
        first = kv.client_id()

        def broken(reply: object) -> int:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            kv._submit((b"PING",), broken, safe=True, patience=None)
        assert kv.client_id() != first


def test_connections_that_nobody_uses_are_closed(own_url: str) -> None:
    with kvclient.connect(own_url, max_idle=0.05) as kv:
        held = [kv._pool.take(soon()) for _ in range(3)]
        for connection in held:
            kv._pool.give(connection)
        assert len(kv._pool) == 3
        threading.Event().wait(0.06)
        kv.ping()
        kv.ping()
        assert len(kv._pool) == 1
        assert held[0].closed
        assert held[1].closed


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(own_url: str) -> None:
    with kvclient.connect(own_url) as kv:
        first = kv.client_id()
        held = kv._pool.take(soon())
        kv._pool._lock.acquire()  # as another thread may hold it at the moment of the fork
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                assert held.closed
                assert kv.client_id() != first
                status = 0
            os._exit(status)
        kv._pool._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        kv._pool.give(held)
        assert kv.client_id() == first


def test_closing(own_url: str) -> None:
    kv = kvclient.connect(own_url, max_connections=1)
    held = kv._pool.take(soon())
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(kv.ping)
        while not kv._pool._waiters:
            os.sched_yield()
        kv.close()
        with pytest.raises(ClientClosedError):
            waiting.result(5)
    kv._pool.give(held)
    assert held.closed
    kv.close()
    with pytest.raises(ClientClosedError, match=r"connect\(\)"):
        kv.ping()


def test_no_connection_can_be_made() -> None:
    with pytest.raises(CannotConnectError, match="is the server running there") as raised:
        kvclient.connect("redis://127.0.0.1:1")
    assert raised.value.applied == "no"
    with pytest.raises(CannotConnectError):
        kvclient.connect("unix:///nonexistent/socket")
    with pytest.raises(CannotConnectError):
        kvclient.connect("redis://name.invalid")


def test_a_connection_the_server_closed_while_idle_goes_unnoticed(own_url: str) -> None:
    with kvclient.connect(own_url, max_connections=1) as kv, kvclient.connect(own_url) as other:
        kv.set("n", 0)
        for turn in range(1, 6):
            assert other.client_kill(id=kv.client_id()) == 1
            kv._pool._idle[-1].used = 0.0  # long ago, as far as the pool can tell
            assert kv.incr("n") == turn


def test_a_pool_is_collected_without_warnings(own_url: str) -> None:
    """No ResourceWarning, and the server sees the connections go."""
    kv = kvclient.connect(own_url)
    del kv
    gc.collect()


def test_failed_opening_frees_the_place(fake: Make) -> None:
    server = fake(lambda peer: None)
    options = kvclient.client.parse_url(server.url)
    pool = Pool(lambda: Connection(options), 1)
    for _ in range(3):
        with pytest.raises((CannotConnectError, ConnectionLostError)):
            pool.take(soon())
        assert len(pool) == 0
