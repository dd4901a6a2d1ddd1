"""The typed commands that watch a server and that run scripts."""

from __future__ import annotations

import pytest
from redis.lock import Lock

import kvclient
from kvclient.errors import ServerError


def test_slow_commands(kv: kvclient.Client) -> None:
    old = kv.config_get("slowlog-log-slower-than")
    kv.slowlog_reset()
    kv.config_set({"slowlog-log-slower-than": 0})
    kv.set("k", "v")
    kv.config_set(old)
    entries = kv.slowlog_get(-1)
    (entry,) = [entry for entry in entries if entry.words == [b"SET", b"k", b"v"]]
    assert entry.amount >= 0
    assert entry.address.startswith("127.0.0.1:")
    assert kv.slowlog_len() == len(entries) == len(kv.commandlog_get(count=-1))
    assert entries[0].number > entries[-1].number
    kv.slowlog_reset()
    assert kv.slowlog_get() == []
    assert "SLOWLOG" in kv.slowlog_help()


def test_large_commands(kv: kvclient.Client) -> None:
    kv.commandlog_reset("large-request")
    kv.commandlog_reset("large-reply")
    old = kv.config_get("commandlog-request-larger-than")
    kv.config_set({"commandlog-request-larger-than": 100})
    kv.set("k", "v" * 200)
    kv.config_set(old)
    entry = kv.commandlog_get("large-request")[0]
    assert entry.words[:2] == [b"SET", b"k"]
    assert entry.amount >= 200
    assert kv.commandlog_len("large-request") == 1
    kv.commandlog_reset("large-request")
    assert kv.commandlog_len("large-request") == kv.commandlog_len("large-reply") == 0
    assert "COMMANDLOG" in kv.commandlog_help()


def test_latency(kv: kvclient.Client) -> None:
    kv.latency_reset()
    assert kv.latency_latest() == []
    assert kv.latency_history("command") == []
    assert kv.latency_reset("command", "fork") == 0
    assert kv.latency_doctor()
    kv.get("k")
    histogram = kv.latency_histogram("get")
    assert list(histogram) == [b"get"]
    assert "LATENCY" in kv.latency_help()


def test_memory(kv: kvclient.Client) -> None:
    kv.set("k", "v" * 1000)
    usage = kv.memory_usage("k")
    assert usage is not None
    assert 1000 < usage < 2000
    assert kv.memory_usage("none") is None
    assert kv.memory_stats()[b"keys.count"] == 1
    assert kv.memory_doctor()
    kv.memory_purge()
    assert kv.memory_malloc_stats()
    assert "MEMORY" in kv.memory_help()


def test_a_pause_holds_up_what_writes(kv: kvclient.Client) -> None:
    kv.client_pause(60, only_writes=True)
    assert kv.get("k") is None
    kv.client_unpause()
    kv.set("k", "v")


def test_scripts(kv: kvclient.Client) -> None:
    script = Lock.LUA_RELEASE_SCRIPT
    kv.script_flush()
    kv.set("lock", "token")
    with pytest.raises(ServerError, match="NOSCRIPT"):
        kv.evalsha("0" * 40)
    assert kv.eval(script, ["lock"], ["other"]) == 0
    sha1 = kv.script_load(script)
    assert kv.script_exists(sha1, "0" * 40) == [True, False]
    assert kv.evalsha(sha1, ["lock"], ["token"]) == 1
    assert kv.get("lock") is None
    kv.script_flush()
    assert kv.script_exists(sha1) == [False]
    assert "SCRIPT" in kv.script_help()


def test_hot_keys(own_kv: kvclient.Client) -> None:
    own_kv.hotkeys_start(count=2, duration=100, sample=1)
    own_kv.set("k", "v")
    ((one),) = own_kv.hotkeys_get()  # type: ignore[misc, union-attr]
    report = one if isinstance(one, dict) else dict(zip(one[::2], one[1::2], strict=True))
    assert report[b"by-net-bytes"][0] == b"k"
    assert own_kv.hotkeys_stop() is True
    assert own_kv.hotkeys_stop() is False
    own_kv.hotkeys_reset()
    assert own_kv.hotkeys_get() is None
