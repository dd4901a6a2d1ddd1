"""Commands of which each node gets a part: what is wrong with the whole, parts that fail, and who waits for whom."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from cluster.harness import Cluster, real_cluster

import kvclient
import kvclient.aio
from kvclient.cluster.plan import Lost, replies_among
from kvclient.cluster.slots import slot_of
from kvclient.errors import CannotConnectError, ConnectionLostError, CrossSlotError, KVError, ServerError


def keys_of_two_nodes(cluster: Cluster) -> tuple[str, str]:
    one, other, *_ = cluster.primaries()
    found = {id(cluster.owner(slot_of(b"%d" % number))): str(number) for number in range(20)}
    return found[id(one)], found[id(other)]


def test_a_value_is_missing(cluster: Cluster) -> None:
    a, b = keys_of_two_nodes(cluster)
    with kvclient.connect(cluster.url) as kv:
        with pytest.raises(ServerError, match="wrong number of arguments"):
            kv.execute("MSET", a, 1, b)
        assert kv.mget(a, b) == [None, None]

    async def main() -> None:
        async with kvclient.aio.connect(cluster.url) as kv:
            with pytest.raises(ServerError, match="wrong number of arguments"):
                await kv.execute("MSET", a, 1, b)
            assert await kv.mget(a, b) == [None, None]

    asyncio.run(main())


def test_what_is_told_of_parts() -> None:
    away, lost = CannotConnectError("away"), ConnectionLostError("lost")
    for outcomes, applied in (
        ([Lost(away)], "no"),
        ([Lost(away), Lost(away)], "no"),
        ([Lost(away), b"OK"], "unknown"),
        ([b"OK", Lost(away)], "unknown"),
        ([Lost(away), Lost(lost)], "unknown"),
        ([Lost(lost), Lost(away)], "unknown"),
    ):
        with pytest.raises(KVError) as caught:
            replies_among(outcomes)  # type: ignore[arg-type]
        assert caught.value.applied == applied
    assert away.applied == "no"
    assert replies_among([b"OK", 1]) == [b"OK", 1]


def test_one_node_is_away() -> None:
    with real_cluster(timeout=20_000) as cluster:
        a, b = keys_of_two_nodes(cluster)
        with kvclient.connect(cluster.url, timeout=1) as kv:
            kv.mset({a: "old", b: "old"})
            next(node for node in cluster.primaries() if node is cluster.owner(slot_of(b.encode()))).kill()
            with pytest.raises(KVError) as caught:
                kv.mset({a: "new", b: "new"})
            assert kv.get(a) == b"new"
            assert caught.value.applied == "unknown"


def test_calls_with_several_nodes_do_not_wait_for_each_other(cluster: Cluster) -> None:
    """Each node's only connection is in use by a call that waits for the other's."""
    a, b = keys_of_two_nodes(cluster)
    longest = [0.0, 0.0]
    with kvclient.connect(cluster.url, timeout=4, max_connections=1) as kv:

        def work(number: int, *keys: str) -> None:
            for _ in range(500):
                began = time.monotonic()
                kv.mget(*keys)
                longest[number] = max(longest[number], time.monotonic() - began)

        threads = [threading.Thread(target=work, args=(0, a, b)), threading.Thread(target=work, args=(1, b, a))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(longest) < 1.5


def test_what_is_for_all_nodes_is_not_for_a_transaction(cluster: Cluster) -> None:
    """One node would do its part, and nobody would be told that it was no more."""
    keys = [str(number) for number in range(50)]
    with kvclient.connect(cluster.url) as kv:
        kv.mset(dict.fromkeys(keys, "x"))
        for words in (["FLUSHALL"], ["DBSIZE"], ["KEYS", "*"], ["SCAN", "0"], ["RANDOMKEY"]):
            transaction = kv.transaction()
            transaction.set("k", 1)
            transaction.execute(*words)
            with pytest.raises(CrossSlotError, match="is for all nodes"):
                transaction.run()
        assert kv.get("k") is None
        assert kv.dbsize() == len(keys)
        with kv.transaction() as transaction:
            transaction.ping()


def test_scan_in_a_pipeline(cluster: Cluster) -> None:
    keys = {b"%d" % number for number in range(200)}
    with kvclient.connect(cluster.url) as kv:
        kv.mset(dict.fromkeys(keys, "x"))
        cursor, found = b"0", set()
        while True:
            with kv.pipeline() as pipeline:
                future = pipeline.execute("SCAN", cursor)
            cursor, page = future.result()  # type: ignore[misc, assignment]
            found |= {*page}  # type: ignore[has-type]
            if cursor == b"0":
                break
        assert found == keys
        with kv.pipeline() as pipeline:
            over, value = pipeline.execute("SCAN", 4095), pipeline.get("1")
        assert (over.result(), value.result()) == ([b"0", []], b"x")
