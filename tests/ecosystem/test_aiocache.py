"""aiocache's Redis cache."""

from __future__ import annotations

import asyncio

import pytest
from aiocache import RedisCache
from aiocache.lock import OptimisticLock, OptimisticLockError, RedLock

import kvserver


def test_a_cache(server: kvserver.Server) -> None:
    async def main() -> None:
        async with RedisCache(endpoint="127.0.0.1", port=server.port, namespace="shop:") as cache:
            assert await cache.set("k", "v", ttl=60)
            assert await cache.get("k") == "v"
            assert await cache.exists("k")
            with pytest.raises(ValueError, match="already exists"):
                await cache.add("k", "other")
            assert await cache.multi_set([("a", "1"), ("b", "2")], ttl=60)
            assert await cache.multi_get(["a", "none", "b"]) == ["1", None, "2"]
            assert await cache.increment("n", 5) == 5
            assert await cache.expire("n", 60)
            assert await cache.delete("a") == 1
            assert await cache.clear(namespace="shop:")
            assert await cache.get("b") is None

    asyncio.run(main())


def test_its_locks_run_scripts(server: kvserver.Server) -> None:
    async def main() -> None:
        async with RedisCache(endpoint="127.0.0.1", port=server.port) as cache:
            async with RedLock(cache, "job", lease=5):
                assert await cache.exists("job-lock")
            assert not await cache.exists("job-lock")
            await cache.set("value", "old")
            async with OptimisticLock(cache, "value") as lock:
                await cache.set("value", "changed by another")
                with pytest.raises(OptimisticLockError):
                    await lock.cas("new")

    asyncio.run(main())
