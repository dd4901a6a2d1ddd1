"""coredis: typed asynchronous commands, pipelines, transactions, messages and locks. It speaks RESP3 only."""

from __future__ import annotations

import asyncio
from typing import Any

import coredis
import pytest
from coredis.patterns.lock import Lock

import kvserver


@pytest.fixture
def client(server: kvserver.Server) -> Any:
    return coredis.Redis(host="127.0.0.1", port=server.port)


def test_commands(client: Any) -> None:
    async def main() -> None:
        async with client:
            assert await client.set("k", "v", ex=60)
            assert await client.get("k") == b"v"
            assert 0 < await client.ttl("k") <= 60
            assert await client.mset({"a": "1", "b": "2"})
            assert await client.mget(["a", "none", "b"]) == (b"1", None, b"2")
            assert await client.incr("a") == 2
            assert [key async for key in client.scan_iter(match="k*")] == [b"k"]
            assert (await client.info())["role"] == "master"
            with pytest.raises(coredis.exceptions.ResponseError, match="unknown command"):
                await client.lpush("list", ["x"])

    asyncio.run(main())


def test_transactions_and_locks(client: Any) -> None:
    async def main() -> None:
        async with client:
            async with client.pipeline(transaction=True) as pipe:
                one, two = pipe.set("x", "1"), pipe.incr("x")
            assert (await one, await two) == (True, 2)
            async with Lock(client, "job", timeout=10) as lock:
                assert await client.exists(["job"])
                assert await lock.extend(20)
            assert not await client.exists(["job"])

    asyncio.run(main())


def test_messages(client: Any) -> None:
    async def main() -> None:
        async with client, client.pubsub(channels=["news"], patterns=["n*"]) as messages:
            while await client.publish("news", "hello") < 2:
                pass
            seen = set()
            async for message in messages:
                if message["type"] in ("message", "pmessage"):
                    seen.add((message["type"], message["data"]))
                if len(seen) == 2:
                    break
            assert seen == {("message", b"hello"), ("pmessage", b"hello")}

    asyncio.run(main())
