"""valkey-py: locks, messages and transactions. Its plain commands are tests/clients' subject."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import valkey
import valkey.asyncio

import kvserver


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def options(server: kvserver.Server, request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": server.port, "protocol": request.param}


def test_a_url_of_its_own_scheme(server: kvserver.Server) -> None:
    with valkey.from_url(server.url.replace("redis://", "valkey://")) as client:
        assert client.ping()


def test_locks_messages_and_transactions(options: dict[str, Any]) -> None:
    with valkey.Valkey(**options) as client, client.pubsub() as messages:
        with client.lock("job", timeout=10) as lock:
            assert lock.extend(5)
            assert not client.lock("job", timeout=10).acquire(blocking=False)
        messages.ssubscribe("shard")
        messages.subscribe("news")
        assert [messages.get_message(timeout=5)["type"] for _ in range(2)] == ["ssubscribe", "subscribe"]
        assert client.spublish("shard", "one") == 1
        assert client.publish("news", "two") == 1
        assert [messages.get_message(timeout=5)["data"] for _ in range(2)] == [b"one", b"two"]
        with client.pipeline() as pipe:
            pipe.watch("a")
            client.set("a", 1)
            pipe.multi()
            pipe.incr("a")
            with pytest.raises(valkey.exceptions.WatchError):
                pipe.execute()


def test_asyncio(options: dict[str, Any]) -> None:
    async def main() -> None:
        async with valkey.asyncio.Valkey(**options) as client, client.pubsub() as messages:
            async with client.lock("job", timeout=10):
                assert await client.exists("job")
            await messages.subscribe("news")
            assert (await messages.get_message(timeout=5))["type"] == "subscribe"
            await client.publish("news", "hello")
            assert (await messages.get_message(timeout=5))["data"] == b"hello"
            async with client.pipeline(transaction=True) as pipe:
                assert await pipe.set("a", 1).incr("a").execute() == [True, 2]

    asyncio.run(main())
