"""Commands in Python on a gateway: atomic over the backend's keys, and refused where they could not be."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster.harness import Cluster

import kvclient
import kvserver
from kvclient.errors import ServerError
from kvserver import Data, command, extensions


@pytest.fixture(autouse=True)
def _commands() -> Iterator[None]:
    @command("T.TAKE", keys=(1, 1, 1))
    def take(data: Data, key: bytes, limit: int, seconds: int) -> int:
        count = data.incr(key)
        if count == 1:
            data.expire(key, seconds)
        return limit - count if count <= limit else -1

    @command("T.MOVE", keys=(1, 2, 1))
    def move(data: Data, source: bytes, target: bytes, amount: int) -> list[int]:
        left, there = int(data.get(source) or 0) - amount, int(data.get(target) or 0) + amount
        if left < 0:
            raise kvserver.CommandError("ERR not enough")
        data.set(source, left)
        data.call("INCRBY", target, amount)
        return [left, there]

    @command("T.ODD", keys=(1, 1, 1))
    def odd(data: Data, key: bytes, how: str) -> object:
        match how:
            case "delete":
                return data.delete(key)
            case "stray":
                data.set("stray", "x")
            case "raise":
                data.set(key, "x")
                raise ValueError
            case "persist":
                return data.call("PERSIST", key)
        return data.ttl(key)

    @command("T.NOKEYS", keys=None)
    def no_keys(data: Data) -> int:
        return 1

    yield
    for name, _ in list(extensions.functions()):
        extensions.remove(name)


@pytest.fixture
def kv(cluster: Cluster) -> Iterator[kvclient.Client]:
    with kvserver.Server(port=0, backend=cluster.url) as server, kvclient.connect(server.url, timeout=30) as client:
        yield client


def test_a_limit_holds_whoever_takes(cluster: Cluster, kv: kvclient.Client) -> None:
    with kvserver.Server(port=0, backend=cluster.url) as other, kvclient.connect(other.url, timeout=30) as there:

        def take(number: int) -> object:
            return (kv, there)[number % 2].execute("T.TAKE", "limit", 10, 100)

        with ThreadPoolExecutor(8) as threads:
            replies = sorted(threads.map(take, range(30)), reverse=True)  # type: ignore[type-var]
    assert replies == [*range(9, -1, -1), *[-1] * 20]
    assert kv.get("limit") == b"30"
    assert 90 < (kv.ttl("limit") or 0) <= 100


def test_two_keys_together(kv: kvclient.Client) -> None:
    kv.mset({"{u}a": 100, "{u}b": 0})
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: kv.execute("T.MOVE", "{u}a", "{u}b", 1), range(40)))
    assert kv.mget("{u}a", "{u}b") == [b"60", b"40"]
    with pytest.raises(ServerError, match="not enough"):
        kv.execute("T.MOVE", "{u}a", "{u}b", 61)
    with pytest.raises(ServerError, match="same slot"):
        kv.execute("T.MOVE", "a", "b", 0)


def test_what_it_leaves(kv: kvclient.Client) -> None:
    kv.set("k", "v", ttl=100)
    assert 99 < float(kv.execute("T.ODD", "k", "ttl") or 0) <= 100  # type: ignore[arg-type]
    assert 99 < (kv.ttl("k") or 0) <= 100
    assert kv.execute("T.ODD", "k", "persist") == 1
    assert kv.ttl("k") in {-1, None}
    with pytest.raises(ServerError, match="failed with ValueError"):
        kv.execute("T.ODD", "k", "raise")
    assert kv.get("k") == b"v"
    with pytest.raises(ServerError, match="changed a key that it does not name"):
        kv.execute("T.ODD", "k", "stray")
    assert not kv.exists("stray")
    assert kv.execute("T.ODD", "k", "delete")
    assert not kv.exists("k")


def test_what_cannot_be(cluster: Cluster, kv: kvclient.Client) -> None:
    with pytest.raises(ServerError, match="names no keys"):
        kv.execute("T.NOKEYS")
    transaction = kv.transaction()
    transaction.execute("T.TAKE", "k", 1, 1)
    with pytest.raises(ServerError) as caught:
        transaction.run()
    assert "which a gateway cannot run within another" in str(caught.value.__cause__)
    with kvclient.connect(cluster.url) as behind:
        behind.execute("LPUSH", "list", "x")
    with pytest.raises(ServerError, match="WRONGTYPE"):
        kv.execute("T.TAKE", "list", 1, 1)


def test_a_failure_costs_no_connection() -> None:
    with (
        kvserver.Server(port=0) as data,
        kvserver.Server(port=0, backend=data.url) as server,
        kvclient.connect(server.url) as client,
        kvclient.connect(data.url) as behind,
    ):
        before = _connections(behind)
        for _ in range(20):
            with pytest.raises(ServerError, match="not enough"):
                client.execute("T.MOVE", "a", "b", 1)
            with pytest.raises(ServerError, match="does not name"):
                client.execute("T.ODD", "k", "stray")
        assert _connections(behind) - before <= 2


def test_what_only_reads_has_read_at_one_moment() -> None:
    with (
        kvserver.Server(port=0) as data,
        kvserver.Server(port=0, backend=data.url) as server,
        kvclient.connect(server.url) as client,
        kvclient.connect(data.url) as behind,
    ):
        runs = []

        @command("T.SUM", keys=(1, 2, 1))
        def total(data: Data, one: bytes, other: bytes) -> int:
            runs.append(one)
            if len(runs) == 1:
                behind.mset({"a": 5, "b": 5})
            return int(data.get(one) or 0) + int(data.get(other) or 0)

        behind.mset({"a": 1, "b": 1})
        assert client.execute("T.SUM", "a", "b") == 10
        assert len(runs) == 2


def _connections(client: kvclient.Client) -> int:
    """How many this server has had."""
    line = next(line for line in bytes(client.execute("INFO", "stats")).splitlines() if b"total_conn" in line)  # type: ignore[arg-type]
    return int(line.split(b":")[1])
