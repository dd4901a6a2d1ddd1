"""cachelib, and Flask-Caching, which is built on it."""

from __future__ import annotations

from cachelib import RedisCache

import kvserver


def test_cachelib(server: kvserver.Server) -> None:
    cache = RedisCache(host="127.0.0.1", port=server.port, key_prefix="p:", default_timeout=60)
    assert cache.set("k", {"a": 1}) is True
    assert cache.get("k") == {"a": 1}
    assert cache.add("k", 2) is False
    assert cache.add("new", 2) is True
    assert cache.has("new")
    assert cache.set_many({"x": 1, "y": "two"}) == ["x", "y"]
    assert cache.get_many("x", "none", "y") == [1, None, "two"]
    assert cache.get_dict("x", "y") == {"x": 1, "y": "two"}
    assert cache.inc("x", 4) == 5
    assert cache.dec("x") == 4
    assert cache.delete("x") is True
    assert cache.delete_many("y", "k") == ["y", "k"]
    assert cache.clear()
    assert not cache.has("new")
