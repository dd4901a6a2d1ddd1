"""cashews: its cache, decorators and locks, with the two scripts they send. Tags and slices need sets."""

from __future__ import annotations

import asyncio
import itertools

from cashews import Cache


def test_cache_decorators_and_locks(url: str) -> None:
    async def main() -> None:
        cache = Cache()
        cache.setup(url, suppress=False)
        await cache.set("k", {"a": 1}, expire="1m")
        assert await cache.get("k") == {"a": 1}
        assert 0 < await cache.get_expire("k") <= 60
        assert await cache.set("k", 2, exist=False) is False
        await cache.set_many({"a": 1, "b": 2}, expire=60)
        assert await cache.get_many("a", "b", "none") == (1, 2, None)
        assert await cache.incr("visits", expire=60) == 1
        assert await cache.incr("visits", expire=60) == 2
        assert await cache.exists("visits")
        assert sorted([key async for key in cache.scan("[ab]*")]) == ["a", "b"]
        await cache.delete_match("[ab]*")
        assert await cache.get("a") is None

        async with cache.lock("job", expire="10s"):
            assert await cache.is_locked("job")
        assert not await cache.is_locked("job")

        counter = itertools.count()

        @cache(ttl="1m", key="double:{number}", lock=True)
        async def double(number: int) -> tuple[int, int]:
            return number * 2, next(counter)

        assert await double(4) == await double(4) == (8, 0)
        await cache.clear()
        assert await double(4) == (8, 1)
        await cache.close()

    asyncio.run(main())
