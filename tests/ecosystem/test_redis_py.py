"""redis-py: locks, messages, transactions and client-side caching. Its plain commands are tests/clients' subject."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.cache import CacheConfig

import kvserver


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def options(server: kvserver.Server, request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": server.port, "protocol": request.param}


def test_lock(options: dict[str, Any]) -> None:
    with redis.Redis(**options) as client:
        lock = client.lock("job", timeout=10)
        assert lock.acquire(blocking=False)
        assert not client.lock("job", timeout=10).acquire(blocking=False)
        assert lock.owned()
        assert lock.extend(10)
        assert 10_000 < client.pttl("job") <= 20_000
        assert lock.reacquire()
        assert client.pttl("job") <= 10_000
        client.set("job", "somebody else's")
        with pytest.raises(redis.exceptions.LockError):
            lock.release()
        client.delete("job")
        with client.lock("job", timeout=10):
            pass
        assert not client.exists("job")


def test_lock_in_threads(options: dict[str, Any]) -> None:
    count = 0
    start = threading.Barrier(4)

    def work() -> None:
        nonlocal count
        with redis.Redis(**options) as client:
            start.wait()
            for _ in range(10):
                with client.lock("job", timeout=30, sleep=0.001):
                    seen = count
                    client.ping()
                    count = seen + 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == 40


def test_asyncio_lock(options: dict[str, Any]) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis(**options) as client:
            async with client.lock("job", timeout=10) as lock:
                assert await lock.owned()
                assert await lock.extend(5)
                assert not await client.lock("job", timeout=10).acquire(blocking=False)
            assert not await client.exists("job")

    asyncio.run(main())


def test_messages(options: dict[str, Any]) -> None:
    with redis.Redis(**options) as client, client.pubsub() as messages:
        messages.subscribe("news")
        messages.psubscribe("n*")
        assert [messages.get_message(timeout=5)["type"] for _ in range(2)] == ["subscribe", "psubscribe"]
        assert client.publish("news", "hello") == 2
        first, second = messages.get_message(timeout=5), messages.get_message(timeout=5)
        assert first == {"type": "message", "pattern": None, "channel": b"news", "data": b"hello"}
        assert second == {"type": "pmessage", "pattern": b"n*", "channel": b"news", "data": b"hello"}
        assert client.pubsub_channels() == [b"news"]
        assert client.pubsub_numsub("news", "none") == [(b"news", 1), (b"none", 0)]
        assert client.pubsub_numpat() == 1
        messages.ping()
        assert messages.get_message(timeout=5)["type"] == "pong"
        messages.unsubscribe()
        messages.punsubscribe()
        assert [messages.get_message(timeout=5)["type"] for _ in range(2)] == ["unsubscribe", "punsubscribe"]


def test_messages_to_a_thread(options: dict[str, Any]) -> None:
    got: list[bytes] = []
    arrived = threading.Event()

    def handler(message: dict[str, Any]) -> None:
        got.append(message["data"])
        arrived.set()

    with redis.Redis(**options) as client, client.pubsub() as messages:
        messages.subscribe(news=handler)
        thread = messages.run_in_thread(sleep_time=0.1)
        while client.publish("news", "hello") == 0:
            pass
        assert arrived.wait(10)
        thread.stop()
        thread.join(10)
    assert got[0] == b"hello"


def test_asyncio_messages_and_keyspace_events(options: dict[str, Any]) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis(**options) as client, client.pubsub() as messages:
            await client.config_set("notify-keyspace-events", "KEA")
            await messages.psubscribe("__keyevent@0__:*")
            assert (await messages.get_message(timeout=5))["type"] == "psubscribe"
            await client.set("k", "v", ex=60)
            seen = [(await messages.get_message(timeout=5)) for _ in range(2)]
            assert [(m["channel"], m["data"]) for m in seen] == [
                (b"__keyevent@0__:set", b"k"),
                (b"__keyevent@0__:expire", b"k"),
            ]

    asyncio.run(main())


def test_transactions(options: dict[str, Any]) -> None:
    with redis.Redis(**options) as client, redis.Redis(**options) as other:
        with client.pipeline() as pipe:
            assert pipe.set("a", 1).incr("a").get("a").execute() == [True, 2, b"2"]
            pipe.watch("a")
            other.set("a", 9)
            pipe.multi()
            pipe.incr("a")
            with pytest.raises(redis.exceptions.WatchError):
                pipe.execute()

        def double(pipe: Any) -> None:
            value = int(pipe.get("a"))
            pipe.multi()
            pipe.set("a", value * 2)

        assert client.transaction(double, "a") == [True]
        assert client.get("a") == b"18"


def test_asyncio_transactions(options: dict[str, Any]) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis(**options) as client:

            async def double(pipe: Any) -> None:
                value = int(await pipe.get("a") or 1)
                pipe.multi()
                pipe.set("a", value * 2)

            await asyncio.gather(*(client.transaction(double, "a") for _ in range(5)))
            assert await client.get("a") == b"32"

    asyncio.run(main())


def test_client_side_caching(server: kvserver.Server) -> None:
    cached = redis.Redis(port=server.port, protocol=3, cache_config=CacheConfig())
    with cached, redis.Redis(port=server.port) as other:
        other.set("k", "old")
        assert cached.get("k") == b"old"
        gets = other.info("commandstats")["cmdstat_get"]["calls"]
        assert cached.get("k") == b"old"
        assert other.info("commandstats")["cmdstat_get"]["calls"] == gets
        other.set("k", "new")
        while cached.get("k") != b"new":  # it may be asked before the invalidation has come
            pass
        assert other.info("commandstats")["cmdstat_get"]["calls"] == gets + 1


def test_monitor(options: dict[str, Any]) -> None:
    with redis.Redis(**options) as client, redis.Redis(**options) as other, client.monitor() as monitor:
        other.set("k", "v")
        seen = monitor.next_command()
        while not seen["command"].startswith("SET"):
            seen = monitor.next_command()
        assert seen["command"] == "SET k v"
        assert seen["client_type"] == "tcp"
