"""django-redis: its cache, with the two scripts it sends (for ``incr`` and for its locks)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django_redis.cache import RedisCache

import kvserver

if not settings.configured:
    settings.configure(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
    django.setup()


@pytest.fixture
def cache(server: kvserver.Server) -> Iterator[Any]:
    made = RedisCache(f"{server.url}/1", {"OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"}})
    yield made
    made.close()


def test_values(cache: Any) -> None:
    assert cache.set("a", {"x": 1}, timeout=60) is True
    assert cache.get("a") == {"x": 1}
    assert 0 < cache.ttl("a") <= 60
    assert 59_000 < cache.pttl("a") <= 60_000
    assert cache.set("a", 2, nx=True) is False
    assert cache.persist("a") is True
    assert cache.ttl("a") is None
    assert cache.expire("a", 5) is True
    cache.set_many({"b": 1, "c": 2})
    assert cache.get_many(["b", "c", "none"]) == {"b": 1, "c": 2}
    assert cache.keys("*") != []
    assert sorted(cache.iter_keys("[bc]")) == ["b", "c"]
    assert cache.delete_pattern("[bc]") == 2
    assert cache.touch("a", 100) is True
    cache.clear()
    assert cache.keys("*") == []


def test_incr_runs_a_script(cache: Any) -> None:
    cache.set("n", 5)
    assert cache.incr("n") == 6
    assert cache.decr("n", 2) == 4
    with pytest.raises(ValueError, match="not found"):
        cache.incr("none")


def test_a_lock(cache: Any) -> None:
    with cache.lock("job", timeout=10):
        assert not cache.lock("job", timeout=10).acquire(blocking=False)
    assert cache.lock("job", timeout=10).acquire(blocking=False)
