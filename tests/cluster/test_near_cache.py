"""The near cache on a cluster: right while slots move, and after a primary has died."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster.harness import Cluster, real_cluster, until

import kvclient
import kvclient.aio
from kvclient.cluster.slots import slot_of
from kvclient.errors import KVError

KEYS = [f"key:{number}" for number in range(20)]


@pytest.fixture
def kv(cluster: Cluster) -> Iterator[kvclient.Client]:
    with kvclient.connect(cluster.url, timeout=20) as client:
        yield client


def test_values_of_all_nodes(kv: kvclient.Client) -> None:
    before = threading.active_count()
    kv.mset(dict.fromkeys(KEYS, "1"))
    with kv.near_cache() as near:
        assert near.mget(*KEYS) == near.mget(*KEYS) == [b"1"] * len(KEYS)
        assert near.statistics.hits == len(KEYS)
        kv.mset(dict.fromkeys(KEYS, "2"))
        until(lambda: near.mget(*KEYS) == [b"2"] * len(KEYS))
        told = near.statistics.invalidations
        kv.flushall()
        until(lambda: near.statistics.invalidations == told + 3)  # each primary says that all is gone
        assert near.mget(*KEYS) == [None] * len(KEYS)
        list(kv.scan_iter())  # which asks who has which slot: nothing has moved, so nothing is forgotten
        assert near.statistics.keys == len(KEYS)
    assert threading.active_count() == before


def test_slots_move_under_it(cluster: Cluster, kv: kvclient.Client) -> None:
    """Readers never see an older value after a newer one, and in the end they see what there is."""
    kv.mset(dict.fromkeys(KEYS, "0"))
    end = threading.Event()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        while not end.is_set():
            kv.incr(chance.choice(KEYS))

    def read() -> None:
        seen = dict.fromkeys(KEYS, 0)
        while not end.is_set():
            for key in KEYS:
                value = int(near.get(key) or 0)
                assert value >= seen[key]
                seen[key] = value

    with kv.near_cache() as near, ThreadPoolExecutor(4) as threads:
        running = [threads.submit(write, 1), threads.submit(write, 2), threads.submit(read), threads.submit(read)]
        before = {slot: cluster.owner(slot) for slot in {slot_of(key.encode()) for key in KEYS}}
        for slot, owner in before.items():
            others = [node for node in cluster.primaries() if node is not owner]
            cluster.move(slot, others[slot % 2], owner)
        end.set()
        for each in running:
            each.result()
        until(lambda: near.mget(*KEYS) == kv.mget(*KEYS))
        for slot, owner in before.items():
            cluster.move(slot, owner)
        kv.mset(dict.fromkeys(KEYS, "last"))
        until(lambda: near.mget(*KEYS) == [b"last"] * len(KEYS))
        until(lambda: near.mget(*KEYS) != [] and near.statistics.keys == len(KEYS))


def test_a_primary_dies() -> None:
    with real_cluster(timeout=1000) as mortal, kvclient.connect(mortal.url, timeout=20) as kv:
        kv.mset(dict.fromkeys(KEYS, "1"))
        with kv.near_cache() as near:
            assert near.mget(*KEYS) == [b"1"] * len(KEYS)
            victim = mortal.primaries()[0]
            victim.kill()
            until(lambda: near.statistics.keys == 0)  # at once: nobody tells of its keys any more
            kv.mset(dict.fromkeys(KEYS, "2"))
            until(lambda: near.mget(*KEYS) == [b"2"] * len(KEYS))
            until(lambda: near.mget(*KEYS) != [] and near.statistics.keys == len(KEYS))
            kv.mset(dict.fromkeys(KEYS, "3"))
            until(lambda: near.mget(*KEYS) == [b"3"] * len(KEYS))


def test_tasks_while_slots_move(cluster: Cluster) -> None:
    async def work() -> None:
        async with kvclient.aio.connect(cluster.url, timeout=20) as kv, kv.near_cache() as near:
            await kv.mset(dict.fromkeys(KEYS, "1"))
            slot = slot_of(KEYS[0].encode())
            owner = cluster.owner(slot)
            target = next(node for node in cluster.primaries() if node is not owner)
            for node, value in ((target, b"2"), (owner, b"3")):
                await near.mget(*KEYS)
                await asyncio.to_thread(cluster.move, slot, node)
                await kv.mset(dict.fromkeys(KEYS, value))
                async with asyncio.timeout(60):
                    while await near.mget(*KEYS) != [value] * len(KEYS) or near.statistics.keys != len(KEYS):
                        await asyncio.sleep(0.01)

    asyncio.run(work())


def test_while_the_cluster_is_away() -> None:
    with real_cluster(timeout=1000) as mortal, kvclient.connect(mortal.url, timeout=1) as kv:
        kv.set("k", "1")
        with kv.near_cache() as near:
            assert near.get("k") == b"1"
            for node in mortal.nodes:
                node.kill()
            until(lambda: near.statistics.keys == 0)
            with pytest.raises(KVError):
                near.get("k")
