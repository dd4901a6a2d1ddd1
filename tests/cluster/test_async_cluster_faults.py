"""The async client on a cluster that changes under it, while tasks come and are cancelled."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import pytest
from cluster.harness import Cluster, real_cluster
from cluster.tasks import KEYS, together, with_client

import kvclient
import kvclient.aio
from kvclient.aio import AsyncClient, AsyncWatchingTransaction
from kvclient.cluster.slots import slot_of
from kvclient.errors import (
    CannotConnectError,
    KVError,
)

COUNTERS = [f"counter:{number}" for number in range(30)]  # of all nodes


class Storm:
    """Calls of every kind, each of which checks what it gets."""

    def __init__(self, kv: AsyncClient) -> None:
        self.kv = kv
        self.router = kv._router  # type: ignore[attr-defined]
        self.kinds = (self.one, self.many, self.piped, self.watching, self.found_out)

    async def one(self, number: int) -> None:
        key = KEYS[number % len(KEYS)]
        assert await self.kv.get(key) == key.encode()

    async def many(self, number: int) -> None:
        keys = KEYS[number % 200 : number % 200 + 20]
        assert await self.kv.mget(*keys) == [key.encode() for key in keys]

    async def piped(self, number: int) -> None:
        async with self.kv.pipeline() as pipeline:
            futures = [pipeline.echo(f"{number}:{turn}") for turn in range(5)]
        assert [future.result() for future in futures] == [f"{number}:{turn}".encode() for turn in range(5)]

    async def watching(self, number: int) -> None:
        key = KEYS[number % 10]

        async def read(t: AsyncWatchingTransaction) -> bytes | None:
            return await t.now.get(key)

        assert await self.kv.transaction(read, watch=[key]) == key.encode()

    async def found_out(self, number: int) -> None:
        await self.router.look_again(self.router.slots, asyncio.get_running_loop().time() + 20)


def test_cancellation_storms(cluster: Cluster) -> None:
    """Many calls are cancelled, each at some await: the others get what is theirs."""

    async def work(kv: AsyncClient) -> None:
        source, storm, answered = random.Random(1), Storm(kv), 0
        await kv.mset({key: key for key in KEYS})
        for start in range(0, 4000, 40):
            tasks = [asyncio.create_task(source.choice(storm.kinds)(start + number)) for number in range(40)]
            for _ in range(source.randrange(12)):
                await asyncio.sleep(0)
            for task in source.sample(tasks, 12):
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                answered += outcome is None
                assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
        assert answered > 2000

    with_client(cluster, work)


def test_a_slot_that_moves_loses_nothing(cluster: Cluster) -> None:
    keys = [f"{{moving}}:{number}" for number in range(20)]
    slot = slot_of(b"moving")
    source = cluster.owner(slot)
    target = next(node for node in cluster.primaries() if node is not source)

    async def work(kv: AsyncClient) -> None:
        moved = asyncio.Event()
        done = dict.fromkeys(keys, 0)

        async def count(key: str) -> None:
            while not moved.is_set():
                done[key] += 1
                assert await kv.incr(key) == done[key]

        async def batches() -> None:
            while not moved.is_set():
                await kv.mset({"{moving}:a": "1", "{moving}:b": "2"})
                assert await kv.mget("{moving}:a", "{moving}:b") == [b"1", b"2"]
                async with kv.pipeline() as pipeline:
                    values = [pipeline.get("{moving}:a") for _ in range(10)]
                assert {value.result() for value in values} == {b"1"}

        async def bundles() -> None:
            total = 0
            while not moved.is_set():
                total += 1
                async with kv.transaction() as transaction:
                    result = transaction.incr("{moving}:t")
                assert result.result() == total

        async def move() -> None:
            for place in (target, source):
                await asyncio.to_thread(cluster.move, slot, place)
            while min(done.values()) <= 5:  # on a busy machine it is moved before all have begun
                await asyncio.sleep(0.01)
            moved.set()

        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(count(key))
            group.create_task(batches())
            group.create_task(bundles())
            group.create_task(move())
        assert [int(value or 0) for value in await kv.mget(*keys)] == list(done.values())
        assert min(done.values()) > 5

    with_client(cluster, work)


def test_a_primary_that_dies_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    with real_cluster(timeout=1000) as cluster:

        async def work(kv: AsyncClient) -> None:
            busy, stop = asyncio.Event(), asyncio.Event()
            acknowledged, doubtful = dict.fromkeys(COUNTERS, 0), dict.fromkeys(COUNTERS, 0)
            failures: list[KVError] = []
            reads = 0

            async def count(key: str) -> None:
                while not stop.is_set():
                    try:
                        await kv.incr(key)
                        acknowledged[key] += 1
                        if sum(acknowledged.values()) > 1000:
                            busy.set()
                    except KVError as error:
                        failures.append(error)
                        doubtful[key] += 1

            async def read(key: str) -> None:
                nonlocal reads
                while not stop.is_set():
                    await kv.get(key)
                    await kv.mget(*COUNTERS)
                    reads += 1

            async def kill() -> None:
                await busy.wait()
                victim = await asyncio.to_thread(cluster.owner, slot_of(COUNTERS[0].encode()))
                await asyncio.to_thread(victim.kill)
                await asyncio.to_thread(cluster.wait_until_whole, replicas=2)
                stop.set()

            async with asyncio.TaskGroup() as group:
                for key in COUNTERS:
                    group.create_task(count(key))
                    group.create_task(read(key))
                group.create_task(kill())
            found = [int(value or 0) for value in await kv.mget(*COUNTERS)]
            lost = sum(max(0, acknowledged[key] - value) for key, value in zip(COUNTERS, found, strict=True))
            with capsys.disabled():
                line = f"a primary died: {lost} of {sum(acknowledged.values())} lost, {len(failures)} not known"
                sys.stderr.write(f"\n{line}, {reads} reads\n")
            assert {error.applied for error in failures} <= {"unknown"}
            for key, value in zip(COUNTERS, found, strict=True):
                assert value <= acknowledged[key] + doubtful[key]
            assert max(doubtful.values()) <= 2

        with_client(cluster, work, timeout=10)


def test_a_primary_that_stands_still_is_replaced() -> None:
    with real_cluster(timeout=1000) as cluster:

        async def work(kv: AsyncClient) -> None:
            await kv.mset({key: key for key in KEYS})
            victim = cluster.owner(slot_of(KEYS[0].encode()))
            victim.suspend()
            try:
                outcomes = await together(*map(kv.get, KEYS), kv.mget(*KEYS), *map(kv.incr, COUNTERS))
                assert outcomes[: len(KEYS)] == [key.encode() for key in KEYS]
                assert outcomes[len(KEYS)] == [key.encode() for key in KEYS]
                for outcome in outcomes[len(KEYS) + 1 :]:
                    assert outcome == 1 or (isinstance(outcome, KVError) and outcome.applied == "unknown")
                assert await kv.set(KEYS[0], "new")
            finally:
                victim.resume()
            assert await kv.get(KEYS[0]) == b"new"

        with_client(cluster, work, timeout=8)


def test_all_are_gone() -> None:
    with real_cluster(timeout=1000) as cluster:

        async def work(kv: AsyncClient) -> None:
            await kv.mset({key: key for key in KEYS})
            async with kv.listen("news") as messages:
                for node in cluster.nodes:
                    node.kill()
                loop = asyncio.get_running_loop()
                start = loop.time()
                outcomes = await together(
                    *map(kv.get, KEYS[:50]), kv.mget(*KEYS), kv.dbsize(), kv.transaction().run(), messages.next(0.3)
                )
                assert loop.time() - start < 2.5
                for outcome in outcomes[:52]:
                    assert isinstance(outcome, CannotConnectError), outcome
                assert outcomes[52:] == [(), None]
                assert messages.gaps == 1
            with pytest.raises(CannotConnectError):
                await kvclient.aio.connect(cluster.url, timeout=1)
            pipeline = kv.pipeline()
            pipeline.incr("a")
            pipeline.incr("b")
            with pytest.raises(CannotConnectError):
                await pipeline.run()

        with_client(cluster, work, timeout=2)


def test_a_node_that_is_slow_is_waited_for(cluster: Cluster) -> None:
    """It is asked after half-way to the deadline, and found to be no other's: its reply is still to come."""

    async def work(kv: AsyncClient) -> None:
        await kv.mset({key: key for key in KEYS})
        router, node = kv._router, cluster.owner(slot_of(KEYS[0].encode()))  # type: ignore[attr-defined]
        ask, asked = router._asked, 0

        async def then_resume(*arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            result = await ask(*arguments)
            node.resume()
            return result

        router._asked = then_resume
        node.suspend()
        try:
            async with kv.pipeline() as pipeline:
                futures = [pipeline.get(key) for key in KEYS]
            single, whole = await asyncio.gather(kv.get(KEYS[0]), kv.mget(*KEYS))
        finally:
            node.resume()
        assert asked
        assert [future.result() for future in futures] == whole == [key.encode() for key in KEYS]
        assert single == KEYS[0].encode()

    with_client(cluster, work, timeout=2)


def test_a_slot_half_on_its_way(cluster: Cluster) -> None:
    """Keys are found here and there; what needs both, and a transaction, waits until they are together."""
    slot = slot_of(b"half")
    source = cluster.owner(slot)
    target = next(node for node in cluster.primaries() if node is not source)

    async def work(kv: AsyncClient) -> None:
        await kv.mset({"{half}a": "a", "{half}b": "b"})
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        source.ask("MIGRATE", "127.0.0.1", target.port, "{half}a", 0, 10_000)
        assert await asyncio.gather(*(kv.get("{half}a") for _ in range(20)), kv.get("{half}b")) == [b"a"] * 20 + [b"b"]
        assert await kv.incr("{half}new") == 1
        async with kv.pipeline() as pipeline:
            both = [pipeline.get("{half}a"), pipeline.get("{half}b")]
        assert [each.result() for each in both] == [b"a", b"b"]
        together_again = [
            asyncio.create_task(kv.mget("{half}a", "{half}b")),
            asyncio.create_task(in_a_transaction(kv)),
            asyncio.create_task(kv.transaction(watched, watch=["{half}a"])),
        ]
        await asyncio.wait(together_again, timeout=0.1)
        assert not any(task.done() for task in together_again)
        await asyncio.to_thread(finish)
        assert await asyncio.gather(*together_again) == [[b"a", b"b"]] * 3
        await asyncio.to_thread(cluster.move, slot, source)

    async def in_a_transaction(kv: AsyncClient) -> list[bytes | None]:
        async with kv.transaction() as transaction:
            found = transaction.mget("{half}a", "{half}b")
        return found.result()

    async def watched(t: AsyncWatchingTransaction) -> list[bytes | None]:
        return await t.now.mget("{half}a", "{half}b")

    def finish() -> None:
        source.ask("MIGRATE", "127.0.0.1", target.port, "{half}b", 0, 10_000)
        for node in (target, *(each for each in cluster.primaries() if each is not target)):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    with_client(cluster, work)
