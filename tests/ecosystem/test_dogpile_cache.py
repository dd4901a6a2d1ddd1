"""dogpile.cache, with and without its distributed lock (which is redis-py's Lock)."""

from __future__ import annotations

import itertools

import pytest
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE

import kvserver


@pytest.mark.parametrize("distributed", [False, True])
def test_a_region(server: kvserver.Server, distributed: bool) -> None:
    arguments = {
        "host": "127.0.0.1",
        "port": server.port,
        "redis_expiration_time": 60,
        "distributed_lock": distributed,
        "thread_local_lock": False,
    }
    region = make_region().configure("dogpile.cache.redis", expiration_time=30, arguments=arguments)
    counter = itertools.count()

    @region.cache_on_arguments()
    def load(number: int) -> int:
        return number * 100 + next(counter)

    assert load(1) == load(1) == 100
    load.invalidate(1)
    assert load(1) == 101
    region.set("k", {"a": 1})
    assert region.get("k") == {"a": 1}
    region.set_multi({"x": 1, "y": 2})
    assert region.get_multi(["x", "none", "y"]) == [1, NO_VALUE, 2]
    region.delete_multi(["x", "y"])
    assert region.get("x") is NO_VALUE
    assert region.get_or_create("made", lambda: 7) == 7
