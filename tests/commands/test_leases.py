"""KV.GETL and KV.SETL: one client computes, and nothing old is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import kvclient
import kvserver
from kvclient.errors import ServerError
from kvserver.store import leases


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kv(clock: Clock) -> Iterator[kvclient.Client]:
    with kvserver.Server(port=0, clock=clock) as server, kvclient.connect(server.url) as client:
        yield client


def lease_of(kv: kvclient.Client, key: str = "k", stale: int | None = None) -> int | None:
    reply = kv.getl(key, 1000, stale=stale)
    assert isinstance(reply, list)
    assert reply[2] is None or type(reply[2]) is int
    return reply[2]


def test_one_gets_it_and_stores(kv: kvclient.Client) -> None:
    value, left, lease = kv.getl("k", 1000)  # type: ignore[misc]
    assert (value, left) == (None, -2)
    assert lease > 0  # type: ignore[operator]
    assert kv.getl("k", 1000) == [None, -2, None]
    assert not kv.setl("k", lease + 1, "wrong")  # type: ignore[operator]
    assert kv.setl("k", lease, "value", ttl=60)  # type: ignore[arg-type]
    assert kv.getl("k", 1000) == [b"value", 60_000, None]
    assert not kv.setl("k", lease, "again")  # type: ignore[arg-type]
    assert kv.get("k") == b"value"


def test_an_old_value_comes_with_one(kv: kvclient.Client, clock: Clock) -> None:
    kv.set("k", "value", ttl=60)
    kv.set("for good", "value")
    assert lease_of(kv, stale=59_999) is None
    assert lease_of(kv, stale=60_000)
    assert kv.getl("k", 1000, stale=60_000) == [b"value", 60_000, None]
    assert lease_of(kv, "for good", stale=10**12) is None
    clock.now += 1000
    assert lease_of(kv, stale=60_000)


def test_it_ends(kv: kvclient.Client, clock: Clock) -> None:
    lease = lease_of(kv)
    assert lease
    clock.now += 1000
    assert not kv.setl("k", lease, "late")
    again = lease_of(kv)
    assert again
    assert again != lease
    assert kv.setl("k", again)  # given back
    assert lease_of(kv)
    assert not kv.exists("k")


CHANGES: dict[str, Callable[[kvclient.Client], object]] = {
    "delete": lambda kv: kv.delete("k"),
    "set": lambda kv: kv.set("k", "newer"),
    "append": lambda kv: kv.append("k", "newer"),
    "mset": lambda kv: kv.mset({"k": "newer"}),
    "rename": lambda kv: kv.rename("other", "k"),
    "copy": lambda kv: kv.copy("other", "k"),
    "setbit": lambda kv: kv.setbit("k", 1, 1),
    "flushdb": lambda kv: kv.flushdb(),
    "flushall": lambda kv: kv.flushall(),
    "swapdb": lambda kv: kv.swapdb(0, 1),
    "getdel": lambda kv: kv.getdel("k"),
    "unlink": lambda kv: kv.unlink("k"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_voids_it(kv: kvclient.Client, name: str) -> None:
    kv.set("other", "newer")
    lease = lease_of(kv)
    assert lease
    CHANGES[name](kv)
    after = kv.get("k")
    assert not kv.setl("k", lease, "computed from what was there before")
    assert kv.get("k") == after


def test_those_of_long_keys_take_little_memory(server: kvserver.Server) -> None:
    direct = server.direct
    keys = [b"k" * 100_000 + b"%d" % number for number in range(20)]
    tokens = [direct("KV.GETL", key, 10_000)[2] for key in keys]  # type: ignore[index]
    leases = server._state.keyspace.databases[0].leases
    assert len(leases) == len(keys)
    assert sum(map(len, leases)) < 200 * len(keys)
    assert [direct("KV.GETL", key, 10_000)[2] for key in keys] == [None] * len(keys)  # type: ignore[index]
    direct("SET", keys[0], "x")
    assert direct("KV.SETL", keys[0], tokens[0], "old") is None
    assert direct("KV.SETL", keys[1], tokens[1], "new") == b"OK"
    assert direct("GET", keys[1]) == b"new"


def test_there_are_not_too_many(kv: kvclient.Client, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "MOST", 10)
    for number in range(10):
        assert lease_of(kv, str(number))
    with pytest.raises(ServerError, match="too many leases"):
        lease_of(kv, "more")
    clock.now += 1000
    assert lease_of(kv, "more")


def test_room_is_found_without_looking_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has ended anywhere among them is found, by and by; nobody pays for looking at all of them."""
    monkeypatch.setattr(leases, "MOST", 5000)
    held = leases.Leases()
    for number in range(5000):
        held.grant(b"%d" % number, now=0, until=1 if number == 4321 else 100)
    for _ in range(4321 // leases._LOOKED_AT):
        with pytest.raises(leases.TooManyLeasesError):
            held.grant(b"more", now=50, until=100)
        assert b"4321" in held
    assert held.grant(b"more", now=50, until=100)
    assert len(held) == 5000
    assert b"4321" not in held


def test_what_is_refused(kv: kvclient.Client) -> None:
    for milliseconds in (0, -1, 86_400_001):
        with pytest.raises(ServerError, match="a lease lasts from 1 to 86400000"):
            kv.getl("k", milliseconds)
    with pytest.raises(ServerError, match="a lease lasts"):
        kv.getl("k", 1, stale=-1)
    for words in (("KV.GETL", "k", "1", "STALE"), ("KV.GETL", "k", "1", "X", "1"), ("KV.SETL", "k", "1", "v", "NX")):
        with pytest.raises(ServerError, match="syntax error"):
            kv.execute(*words)
    with pytest.raises(ServerError, match="not an integer"):
        kv.execute("KV.SETL", "k", "x")
