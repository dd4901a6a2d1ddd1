"""Django's own Redis cache, and its sessions kept in it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.cache.backends.redis import RedisCache
from django.test.utils import override_settings

import kvserver

if not settings.configured:
    settings.configure(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
    django.setup()


@pytest.fixture
def cache(server: kvserver.Server) -> Iterator[Any]:
    made = RedisCache(server.url, {"KEY_PREFIX": "shop"})
    yield made
    made.close()


def test_values_and_their_timeouts(cache: Any) -> None:
    cache.set("greeting", {"text": "hello"}, timeout=60)
    assert cache.get("greeting") == {"text": "hello"}
    assert cache.get("none", "default") == "default"
    assert cache.add("greeting", "other") is False
    assert cache.add("new", "value", timeout=60) is True
    assert cache.touch("new", None) is True
    assert cache.has_key("new")
    assert cache.get_or_set("made", lambda: 7) == 7
    assert cache.delete("new") is True
    cache.set("gone", 1, timeout=0)
    assert cache.get("gone") is None


def test_many_at_once(cache: Any) -> None:
    cache.set_many({"a": 1, "b": "two", "c": [3]}, timeout=60)
    assert cache.get_many(["a", "b", "c", "none"]) == {"a": 1, "b": "two", "c": [3]}
    cache.delete_many(["a", "b"])
    assert cache.get_many(["a", "b", "c"]) == {"c": [3]}
    cache.clear()
    assert cache.get("c") is None


def test_counting_and_versions(cache: Any) -> None:
    cache.set("visits", 1, timeout=None)
    assert cache.incr("visits") == 2
    assert cache.decr("visits", 5) == -3
    with pytest.raises(ValueError, match="not found"):
        cache.incr("none")
    assert cache.incr_version("visits") == 2
    assert cache.get("visits", version=2) == -3


def test_a_session(server: kvserver.Server) -> None:
    place = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": server.url}}
    with override_settings(CACHES=place, SESSION_CACHE_ALIAS="default"):
        store = importlib.import_module("django.contrib.sessions.backends.cache").SessionStore
        session = store()
        session["basket"] = ["book"]
        session.save()
        again = store(session_key=session.session_key)
        assert again["basket"] == ["book"]
        old = again.session_key
        again.cycle_key()
        assert again.session_key != old
        assert not store().exists(old)
        assert store(session_key=again.session_key)["basket"] == ["book"]
        again.flush()
        assert not store().exists(session.session_key)
