"""The scripts of libraries do here what they do in Valkey: the same calls, the same replies and the same data."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from conformance.oracle import Wire

import kvserver
from kvserver.commands.known_scripts import KNOWN, fingerprint

Call = tuple[list[object], list[object]]


def _attribute(module: str, name: str) -> str:
    package = pytest.importorskip(module)
    return str(getattr(package.Lock, name))


def _between(module: str, pattern: str) -> str:
    """A script written in the source of a module."""
    spec = importlib.util.find_spec(module) if _is_installed(module.partition(".")[0]) else None
    if spec is None or spec.origin is None:
        pytest.skip(f"{module} is not installed")
    found = re.search(pattern, Path(spec.origin).read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _of_limits(name: str) -> str:
    if not _is_installed("limits"):
        pytest.skip("limits is not installed")
    return (files("limits") / "resources" / "redis" / "lua_scripts" / f"{name}.lua").read_text(encoding="utf-8")


def _of_coredis(name: str) -> str:
    if not _is_installed("coredis"):
        pytest.skip("coredis is not installed")
    return (files("coredis") / "patterns" / "lock" / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def _of_aiocache(name: str) -> str:
    return str(getattr(pytest.importorskip("aiocache.backends.redis").RedisBackend, name))


SWAPS: list[Call] = [
    (["lock"], ["new", "wrong"]), (["lock"], ["new", "token"]), (["forever"], ["a", "token", "EX", 9000]),
    (["forever"], ["b", "a", "PX", 9000000]), (["forever"], ["c", "b", "EX", "x"]), (["m"], ["c", ""]),
    (["text"], ["c", "abc", "EX"]),
]  # fmt: skip
TOKENS: list[Call] = [
    (["lock"], ["token", 2000000, "0"]), (["lock"], ["other", 2000000, "0"]), (["free"], ["token", 1000, "0"]),
    (["forever"], ["token", 2000000, "1"]), (["lock"], ["token", 7000000, "1"]), (["lock"], ["token", "x", "0"]),
]  # fmt: skip
COUNTS: list[Call] = [(["n"], [1, 70000])] * 2 + [(["new"], [1, 50000]), (["text"], [1, 5]), (["m"], [100, 20000])]
WINDOW: list[Call] = [(["w1", "w2"], ["10", "60", "1"])] * 7 + [(["w1", "w2"], ["10", "60", "11"])]
SCRIPTS: dict[str, tuple[Callable[[], str], list[Call]]] = {
    "redis-py: release": (partial(_attribute, "redis.lock", "LUA_RELEASE_SCRIPT"), TOKENS),
    "redis-py: extend": (partial(_attribute, "redis.lock", "LUA_EXTEND_SCRIPT"), TOKENS),
    "redis-py: reacquire": (partial(_attribute, "redis.lock", "LUA_REACQUIRE_SCRIPT"), TOKENS),
    "redis-py asyncio: release": (partial(_attribute, "redis.asyncio.lock", "LUA_RELEASE_SCRIPT"), TOKENS),
    "valkey-py: release": (partial(_attribute, "valkey.lock", "LUA_RELEASE_SCRIPT"), TOKENS),
    "valkey-py: extend": (partial(_attribute, "valkey.lock", "LUA_EXTEND_SCRIPT"), TOKENS),
    "coredis: release": (partial(_of_coredis, "release"), TOKENS),
    "coredis: extend": (partial(_of_coredis, "extend"), [(keys, args[:2]) for keys, args in TOKENS]),
    "cashews: unlock": (partial(_between, "cashews.backends.redis.backend", r'_UNLOCK = """(.*?)"""'), TOKENS),
    "cashews: count": (partial(_between, "cashews.backends.redis.backend", r'_INCR_EXPIRE = """(.*?)"""'), COUNTS),
    "django-redis: incr": (partial(_between, "django_redis.client.default", r'lua = """(.*?)"""'), COUNTS),
    "aiocache: release": (partial(_of_aiocache, "RELEASE_SCRIPT"), [(keys, args[:1]) for keys, args in TOKENS]),
    "aiocache: swap": (partial(_of_aiocache, "CAS_SCRIPT"), SWAPS),
    "limits: fixed": (partial(_of_limits, "incr_expire"), [(keys, args[::-1]) for keys, args in COUNTS]),
    "limits: sliding": (
        partial(_of_limits, "sliding_window"),
        [(["w1", "w2"], ["60"]), (["w1", "w3"], ["60"]), (["w3", "w1"], ["60"]), (["none", "nor this"], ["60"])],
    ),
    "limits: acquire": (
        partial(_of_limits, "acquire_sliding_window"),
        [
            *WINDOW,
            (["w1", "w3"], ["10", "60", "2"]),
            (["x1", "x2"], ["2", "60", "2"]),
            (["x1", "x2"], ["2", "60", "1"]),
        ],
    ),
    "limits: clear": (partial(_of_limits, "clear_keys"), [(["w*"], []), (["nothing*"], [])]),
}
DATA = [
    "SET lock token PX 50000000", "SET forever token", "SET n 5 PX 90000000", "SET text abc", "SET w1 7 PX 30000",
    "SET w2 4 PX 90000", "SET w3 9 PX 20000",
]  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_does_what_it_says(server: kvserver.Server, valkey_port: int, name: str) -> None:
    script, calls = SCRIPTS[name][0](), SCRIPTS[name][1]
    sha1 = hashlib.sha1(script.encode()).hexdigest()
    with Wire(server.port) as ours, Wire(valkey_port) as theirs:
        for wire in (ours, theirs):
            wire.run([b"FLUSHALL"], [b"SCRIPT", b"FLUSH"], *(line.encode().split() for line in DATA))
            assert wire.ask("EVALSHA", sha1, 0).startswith(b"-NOSCRIPT")
            assert wire.ask("SCRIPT", "LOAD", script) == b"$40\r\n%b\r\n" % sha1.encode()
            assert wire.ask("SCRIPT", "EXISTS", sha1, "x") == b"*2\r\n:1\r\n:0\r\n"
        for place, (keys, arguments) in enumerate(calls):
            how, what = ("EVALSHA", sha1.upper()) if place % 2 else ("EVAL", script)
            replies = [wire.ask(how, what, len(keys), *map(str, keys), *map(str, arguments)) for wire in (ours, theirs)]
            assert _about_the_same(*replies), (keys, arguments, replies)
        assert ours.ask("DBSIZE") == theirs.ask("DBSIZE")
        for key in ("lock", "forever", "n", "m", "new", "text", "w1", "w2", "w3", "x1", "x2"):
            assert ours.ask("GET", key) == theirs.ask("GET", key), key
            assert _about_the_same(ours.ask("PTTL", key), theirs.ask("PTTL", key)), key


def _about_the_same(ours: bytes, theirs: bytes) -> bool:
    """Equal but for a moment's difference in times to live; an error of a script says more in Valkey.

    Times to live are all of minutes, for which a number is told from a time: none ends while the test runs.
    """
    if theirs.startswith(b"-"):
        return ours.startswith(b"-")
    mine, real = ([int(number) for number in re.findall(rb":(-?\d+)", reply)] for reply in (ours, theirs))
    without = partial(re.sub, rb":-?\d+", b":")
    near = all(a == b or (min(a, b) > 1000 and abs(a - b) < 1000) for a, b in zip(mine, real, strict=True))
    return near and without(ours) == without(theirs)


def test_a_script_is_known_however_it_is_laid_out() -> None:
    script = str(_attribute("redis.lock", "LUA_RELEASE_SCRIPT"))
    spread = "-- a comment\n" + script.replace("'", '"').replace("\n", "\n\n  -- another\n").replace("return", "RETURN")
    assert fingerprint(script.encode()) == fingerprint(spread.encode())
    assert fingerprint(script.replace("del", "dell").encode()) not in KNOWN


def test_any_other_script_is_refused(server: kvserver.Server) -> None:
    with Wire(server.port) as wire:
        for asked in (("EVAL", "return 1", 0), ("SCRIPT", "LOAD", "return 1")):
            assert wire.ask(*asked).startswith(b"-ERR this server runs no Lua: it knows the scripts of some libraries")
        assert wire.ask("SCRIPT", "EXISTS", hashlib.sha1(b"return 1").hexdigest()) == b"*1\r\n:0\r\n"


BAD = {
    ("x",): b"-ERR value is not an integer or out of range\r\n",
    ("-1",): b"-ERR Number of keys can't be negative\r\n",
    ("1",): b"-ERR Number of keys can't be greater than number of args\r\n",
    ("0",): b"-ERR this script needs more keys or arguments\r\n",
    ("1", "k"): b"-ERR this script needs more keys or arguments\r\n",
}


@pytest.mark.parametrize("words", BAD)
def test_wrong_calls(server: kvserver.Server, words: tuple[str, ...]) -> None:
    script = _attribute("redis.lock", "LUA_RELEASE_SCRIPT")
    with Wire(server.port) as wire:
        assert wire.ask("EVAL", script, *words) == BAD[words]


def test_a_script_in_a_transaction(server: kvserver.Server) -> None:
    script = _attribute("redis.lock", "LUA_RELEASE_SCRIPT")
    with Wire(server.port) as wire:
        wire.ask("SET", "lock", "token")
        wire.ask("MULTI")
        wire.ask("EVAL", script, 1, "lock", "token")
        wire.ask("EXISTS", "lock")
        assert wire.ask("EXEC") == b"*2\r\n:1\r\n:0\r\n"


@pytest.mark.parametrize("thread_local", [False, True])
def test_a_lock_of_redis_py(server: kvserver.Server, thread_local: bool) -> None:
    redis = pytest.importorskip("redis")
    with redis.Redis(port=server.port) as client:
        lock: Any = client.lock("l", timeout=100, thread_local=thread_local)
        assert lock.acquire(blocking=False)
        assert not client.lock("l").acquire(blocking=False)
        assert lock.extend(100)
        assert client.pttl("l") > 150_000
        assert lock.reacquire()
        assert client.pttl("l") <= 100_000
        lock.release()
        assert client.exists("l") == 0
        with pytest.raises(redis.exceptions.LockError):
            lock.release()
