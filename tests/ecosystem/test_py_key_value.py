"""py-key-value's Redis store."""

from __future__ import annotations

import asyncio

from key_value.aio.stores.redis import RedisStore


def test_a_store(url: str) -> None:
    async def main() -> None:
        async with RedisStore(url=url) as store:
            await store.put("k", {"a": 1}, collection="c", ttl=60)
            assert await store.get("k", collection="c") == {"a": 1}
            value, ttl = await store.ttl("k", collection="c")
            assert value == {"a": 1}
            assert ttl is not None
            assert 0 < ttl <= 60
            assert await store.get("k", collection="other") is None
            await store.put_many(["x", "y"], [{"n": 1}, {"n": 2}], collection="c")
            assert await store.get_many(["x", "none", "y"], collection="c") == [{"n": 1}, None, {"n": 2}]
            assert await store.delete("x", collection="c") is True
            assert await store.delete_many(["x", "y"], collection="c") == 1
            assert sorted(await store.keys(collection="c")) == ["k"]

    asyncio.run(main())
