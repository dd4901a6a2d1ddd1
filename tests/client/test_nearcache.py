"""The near cache: answered from here, right as soon as the news of a change is here, and empty without news."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from client.conftest import FakeServer, Peer

import kvclient
import kvclient.aio
import kvserver
from kvclient import nearcache, serializers
from kvclient.connection import Connection
from kvclient.errors import CannotConnectError, ProtocolError, ServerError
from kvclient.protocol import Push

Make = Callable[..., FakeServer]


@pytest.fixture
def own(own_url: str) -> Iterator[kvclient.Client]:
    with kvclient.connect(own_url) as kv:
        kv.flushall()
        yield kv


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline


def test_the_second_time_is_answered_from_here(client: kvclient.Client) -> None:
    client.set("a", "1")
    with client.near_cache() as near:
        assert near.get("a") == near["a"] == near.get(b"a") == b"1"
        assert near.mget("a", "missing", "a") == [b"1", None, b"1"]
        assert near.get("missing") is None
        assert near.statistics[:2] == (4, 2)
        client.set("a", "2")
        until(lambda: near.get("a") == b"2")
        client.set("missing", "here")
        until(lambda: near.get("missing") == b"here")
        client.delete("a")
        until(lambda: near.get("a") is None)
        with pytest.raises(KeyError):
            near["a"]
        client.flushall()
        until(lambda: near.get("missing") is None)
        assert near.statistics.invalidations >= 4


def test_prefixes_namespaces_and_types(client: kvclient.Client) -> None:
    numbers = client.ns("n:").typed(serializers.JSON)
    with numbers.near_cache(prefixes=["a:", "b:"]) as near:
        numbers["a:1"] = [1]
        numbers["c:1"] = [3]
        until(lambda: near.get("a:1") == [1])
        first, second = near.get("a:1"), near.get("a:1")
        assert first == second
        assert first is not second  # nobody can change what is kept
        hits = near.statistics.hits
        assert near.get("c:1") == near.get("c:1") == [3]  # not tracked, so asked for each time
        assert near.statistics.hits == hits
    with client.ns("n:").near_cache() as near:
        client.set("n:k", "1")
        until(lambda: near.get("k") == b"1")
        client.set("k", "other")
        assert near.get("k") == b"1"


def test_it_keeps_only_so_much(own: kvclient.Client) -> None:
    own.mset({f"{number}": number for number in range(50)})
    with own.near_cache(max_keys=10) as near:
        for number in range(50):
            near.get(f"{number}")
        assert near.statistics.keys == 10
    with pytest.raises(ValueError, match="at least one key"):
        own.near_cache(max_keys=0)


def test_when_all_is_quiet_it_agrees(client: kvclient.Client) -> None:
    """Writers and readers at once; whatever a reader has seen, it never goes back to an older value."""
    keys = [f"k:{number}" for number in range(10)]
    ended = threading.Event()
    errors: list[str] = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(300):
            client.incr(chance.choice(keys))

    def read(seed: int) -> None:
        chance = random.Random(seed)
        seen = dict.fromkeys(keys, 0)
        while not ended.is_set():
            key = chance.choice(keys)
            value = int(near.get(key) or 0)
            if value < seen[key]:
                errors.append(f"{key} went from {seen[key]} to {value}")
            seen[key] = value

    with client.near_cache() as near:
        writers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
        readers = [threading.Thread(target=read, args=(seed,)) for seed in range(2)]
        for thread in (*writers, *readers):
            thread.start()
        for thread in writers:
            thread.join()
        ended.set()
        for thread in readers:
            thread.join()
        until(lambda: near.mget(*keys) == client.mget(*keys))
        assert near.statistics.hits
        assert not errors


def test_a_read_that_an_invalidation_overtakes_is_not_kept(own: kvclient.Client) -> None:
    own.set("k", "old")
    with own.near_cache() as near:
        read, overtaken = near._client.mget, threading.Event()

        def slow(*keys: bytes) -> list[bytes | None]:
            values = read(*keys)
            if not overtaken.is_set():  # the reply is here, but its reader has not gone on
                before = near.statistics.invalidations
                own.set("k", "new")
                until(lambda: near.statistics.invalidations > before)
                overtaken.set()
            return values

        near._client.mget = slow  # type: ignore[method-assign,assignment]
        assert near.get("k") == b"old"
        assert near.get("k") == b"new"


def test_without_news_nothing_is_kept() -> None:
    with kvserver.Server(port=0) as server:
        port = server.port
        client = kvclient.connect(server.url, retries=20)
        near = client.near_cache().__enter__()
        client.set("k", "1")
        until(lambda: near.get("k") == b"1" and near.statistics.keys == 1)
        client.client_kill(type="normal", skip_me=True)
        until(lambda: near.statistics.keys == 0)
        until(lambda: near.get("k") == b"1" and near.statistics.keys == 1)  # connected again
    until(lambda: near.statistics.keys == 0)
    with kvserver.Server(port=port):
        assert near.get("k") is None
        client.set("k", "2")
        until(lambda: near.get("k") == b"2" and near.statistics.keys == 1)
        near.close()
        client.close()


def ordinary(peer: Peer) -> None:
    """Of the client's own connection: every key has the value v."""
    peer.greet()
    while peer.read():
        peer.sock.sendall(b"*1\r\n$1\r\nv\r\n")


def test_a_silent_connection_is_found_out(fake: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearcache, "PULSE", 0.05)
    silent = threading.Event()

    def tracking(peer: Peer) -> None:
        peer.greet()
        peer.answer(b"+OK\r\n", b"+PONG\r\n", b"+PONG\r\n")
        silent.set()
        peer.read()
        peer.read()

    with kvclient.connect(fake(ordinary, tracking).url) as kv, kv.near_cache() as near:
        assert near.get("k") == b"v"
        assert near.statistics.keys == 1
        assert silent.wait(10)
        until(lambda: near.statistics.keys == 0)


def test_nonsense_ends_the_connection_and_what_was_kept(fake: Make) -> None:
    kept = threading.Event()

    def tracking(peer: Peer) -> None:
        peer.greet()
        peer.answer(b"+OK\r\n")
        assert kept.wait(10)
        peer.sock.sendall(b">2\r\n$10\r\ninvalidate\r\n*1\r\n*0\r\n")  # an array is no key
        peer.read()

    def silent(peer: Peer) -> None:
        peer.read()

    server = fake(ordinary, tracking, silent)
    with kvclient.connect(server.url) as kv, kv.near_cache() as near:
        assert near.get("k") == b"v"
        assert near.statistics.keys == 1
        kept.set()
        until(lambda: server.accepted > 2)
        assert near.statistics.keys == 0

    async def by_tasks() -> None:
        kept.clear()
        async with kvclient.aio.connect(server.url) as kv, kv.near_cache() as near:
            assert await near.get("k") == b"v"
            accepted = server.accepted
            kept.set()
            while server.accepted == accepted:
                await asyncio.sleep(0)
            assert near.statistics.keys == 0

    server = fake(ordinary, tracking, silent)
    asyncio.run(by_tasks())


def test_it_is_closed_just_as_it_connects_again(own: kvclient.Client) -> None:
    entered, closing = threading.Event(), threading.Event()

    class Late(Connection):
        def open(self, deadline: float) -> None:
            entered.set()
            assert closing.wait(10)
            super().open(deadline)

        def shutdown(self) -> None:
            super().shutdown()  # which finds no socket yet
            closing.set()

    near = own.near_cache().__enter__()
    near._make = lambda: Late(own.options, listens=True)
    own.client_kill(type="normal", skip_me=True)
    assert entered.wait(10)
    closer = threading.Thread(target=near.close)
    closer.start()
    closer.join(10)
    is_closed = not closer.is_alive()
    near._connection.shutdown()  # so that a failure ends, too
    assert is_closed


def test_who_cannot_be_told(own_url: str, fake: Make) -> None:
    with kvclient.connect(own_url, protocol=2) as kv, pytest.raises(CannotConnectError, match="needs RESP3"):
        kv.near_cache().__enter__()
    with kvclient.connect(own_url) as kv, pytest.raises(ServerError, match="overlap"):
        kv.near_cache(prefixes=["a", "ab"]).__enter__()
    kept = nearcache.Kept(5)
    with pytest.raises(ProtocolError):
        kept.tell(Push([b"message", b"a", b"b"]))
    with pytest.raises(ServerError):
        kept.tell(ServerError("ERR", "no"))


def test_by_tasks(any_url: str) -> None:
    async def main() -> None:
        async with kvclient.aio.connect(any_url) as kv:
            await kv.flushall()
            await kv.set("a", "1")
            async with kv.near_cache(prefixes=["a", "b"]) as near:
                assert await near.get("a") == await near.get("a") == b"1"
                assert await near.mget("a", "b", "c") == [b"1", None, None]
                assert near.statistics.hits == 2
                await kv.set("a", "2")
                await _until(near, "a", b"2")
                await kv.client_kill(type="normal", skip_me=True)
                await kv.set("a", "3")
                await _until(near, "a", b"3")
                while near.statistics.keys == 0:
                    await near.get("a")
                await kv.flushall()
                await _until(near, "a", None)

    asyncio.run(main())


async def _until(near: kvclient.aio.AsyncNearCache[bytes], key: str, value: bytes | None) -> None:
    deadline = time.monotonic() + 20
    while await near.get(key) != value:
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
