"""The async client on a real cluster: the calls of one server, by many tasks, while nodes fail and slots move."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from cluster.harness import Cluster, real_cluster

import kvclient
import kvclient.aio
from kvclient import serializers
from kvclient.aio import AsyncClient, AsyncWatchingTransaction
from kvclient.aio.cluster.client import AsyncClusterClient
from kvclient.cluster.slots import slot_of
from kvclient.errors import (
    AuthError,
    CannotConnectError,
    ClientClosedError,
    CommandRefusedError,
    ConnectionLostError,
    CrossSlotError,
    KVError,
    PipelineError,
    ServerError,
    TransactionConflictError,
)

Work = Callable[[AsyncClient], Awaitable[None]]
Run = Callable[..., None]

KEYS = [f"key:{number}" for number in range(300)]  # of all nodes
COUNTERS = [f"counter:{number}" for number in range(30)]  # too


@pytest.fixture
def run(cluster: Cluster) -> Run:
    """Runs an async function with a client of an empty cluster; nothing of it is left behind."""

    def start(work: Work, **options: Any) -> None:
        with_client(cluster, work, **options)

    return start


def with_client(cluster: Cluster, work: Work, *, timeout: float = 20, **options: Any) -> None:
    async def main() -> None:
        async with kvclient.aio.connect(cluster.url, timeout=timeout, **options) as kv:
            await work(kv)
            assert asyncio.all_tasks() == {asyncio.current_task()}
        await nothing_is_open()

    asyncio.run(main(), debug=False)


async def nothing_is_open() -> None:
    """Sockets are closed when the event loop comes round next."""
    loop: Any = asyncio.get_running_loop()
    for _ in range(3):
        await asyncio.sleep(0)
    own = loop._ssock.fileno()  # by which threads wake the loop
    assert [descriptor for descriptor in loop._selector.get_map() if descriptor != own] == []


async def together(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Whatever comes of each, in order."""
    return await asyncio.gather(*calls, return_exceptions=True)


def test_every_node_has_some(cluster: Cluster, run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        assert isinstance(kv, AsyncClusterClient)
        assert all(await asyncio.gather(*(kv.set(key, key) for key in KEYS)))
        assert await asyncio.gather(*map(kv.get, KEYS)) == [key.encode() for key in KEYS]
        assert await kv.mget(*KEYS, "none") == [*(key.encode() for key in KEYS), None]
        counts = [int(node.raw("DBSIZE")[1:]) for node in cluster.primaries()]
        assert sum(counts) == await kv.dbsize() == len(KEYS)
        assert min(counts) > 50
        assert sorted(await kv.keys()) == sorted(key.encode() for key in KEYS)
        assert {key async for key in kv.scan_iter()} == {key.encode() for key in KEYS}
        found = {key async for key in kv.scan_iter(match="key:1*", count=5)}
        assert found == {key.encode() for key in KEYS if key.startswith("key:1")}
        assert await kv.exists(*KEYS, "none", KEYS[0]) == len(KEYS) + 1
        assert await kv.delete(*KEYS[:100]) == 100
        assert await kv.unlink(*KEYS[:150]) == 50
        await kv.mset(dict.fromkeys(KEYS, "x"))
        assert await kv.dbsize() == len(KEYS)
        assert (await kv.randomkey() or b"").startswith(b"key:")
        await kv.flushall()
        assert await kv.randomkey() is None

    run(work)


def test_pages_of_keys_by_hand(run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        await kv.mset(dict.fromkeys(KEYS, "x"))
        cursor, found = await kv.scan(0, count=7)
        pages = 1
        while cursor:
            cursor, more = await kv.scan(cursor, count=7)
            found += more
            pages += 1
        assert sorted(found) == sorted(key.encode() for key in KEYS)
        assert pages > 10
        assert await kv.scan(4095) == (0, [])  # of a node that is not there

    run(work)


def test_what_must_be_whole_is_not_split(run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        for call in (
            kv.mget("a", "b", atomic=True),
            kv.mset({"a": 1, "b": 2}, atomic=True),
            kv.delete("a", "b", atomic=True),
            kv.msetnx({"a": 1, "b": 2}),
            kv.rename("a", "b"),
            kv.execute("BITOP", "AND", "a", "b", "c"),
        ):
            with pytest.raises(CrossSlotError, match="the same part in braces"):
                await call
        assert await kv.dbsize() == 0
        await kv.mset({"{u}a": 1, "{u}b": 2}, atomic=True)
        assert await kv.mget("{u}a", "{u}b", atomic=True) == [b"1", b"2"]

    run(work)


def test_what_one_server_refuses_is_refused(run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        await kv.set("text", "x")
        with pytest.raises(ServerError, match="not an integer"):
            await kv.incr("text")
        with pytest.raises(ServerError, match="unknown command"):
            await kv.execute("NONSENSE", "a", "b")
        with pytest.raises(CommandRefusedError):
            await kv.execute("SUBSCRIBE", "x")
        with pytest.raises(CommandRefusedError, match="near cache"):
            kv.near_cache()
        with pytest.raises(CommandRefusedError, match=r"KV\.ONCE"):
            await kv.once.incr("n")
        with pytest.raises(CommandRefusedError):
            await kv.ns("a:").flushall()

    run(work)


def test_all_primaries_are_asked(run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        assert await kv.ping() is not None
        assert await kv.config_set({"slowlog-max-len": 100}) is None
        assert await kv.wait(1, timeout=10) >= 1
        assert await kv.script_flush() is None
        with pytest.raises(ServerError):
            await kv.config_set({"no-such-setting": 1})

    run(work)


def test_pipelines(run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        async with kv.pipeline() as pipeline:
            for key in KEYS:
                pipeline.incr(key)
                pipeline.incr(key)
            whole = pipeline.mget(*KEYS[:50])
        assert whole.result() == [b"2"] * 50  # a key's commands are run in their order
        async with kv.pipeline() as pipeline:
            values = [pipeline.getdel(key) for key in KEYS]
            large = [pipeline.set(key, "x" * 10_000) for key in KEYS]
        assert [value.result() for value in values] == [b"2"] * len(KEYS)
        assert all(each.result() for each in large)
        pipeline = kv.pipeline()
        pipeline.set("a", "x")
        pipeline.incr("a")
        pipeline.rename("a", "b")
        last = pipeline.get("a")
        with pytest.raises(PipelineError) as caught:
            await pipeline.run()
        assert [type(each) for each in caught.value.results] == [bool, ServerError, CrossSlotError, bytes]
        assert last.result() == b"x"
        assert await kv.pipeline().run() == ()

    run(work)


def test_transactions(run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        async with kv.transaction() as transaction:
            first, second = transaction.incr("{u}a"), transaction.incr("{u}b")
        assert (first.result(), second.result()) == (1, 1)
        transaction = kv.transaction()
        transaction.incr("a")
        transaction.incr("b")
        with pytest.raises(CrossSlotError):
            await transaction.run()
        assert await kv.mget("a", "b") == [None, None]
        assert await kv.transaction().run() == ()

        async def add(t: AsyncWatchingTransaction) -> None:
            t.set("{u}a", int(await t.now.get("{u}a") or 0) + 1)

        async def often() -> None:
            for _ in range(10):
                await kv.transaction(add, watch=["{u}a"], timeout=60)

        await asyncio.gather(*(often() for _ in range(5)))
        assert await kv.get("{u}a") == b"51"
        with pytest.raises(CrossSlotError):
            await kv.transaction(add, watch=["{u}a", "b"])

        async def elsewhere(t: AsyncWatchingTransaction) -> None:
            await t.now.get("b")
            await t.now.get("c")
            await t.now.get("d")

        with pytest.raises(CrossSlotError):
            await kv.transaction(elsewhere, watch=["{u}a"])

        async def disturbed(t: AsyncWatchingTransaction) -> None:
            await kv.incr("{u}a")
            t.incr("{u}b")

        with pytest.raises(TransactionConflictError):
            await kv.transaction(disturbed, watch=["{u}a"], timeout=0.2)
        assert await kv.get("{u}b") == b"1"

    run(work)


def test_listening(run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        async with kv.listen("news", patterns=["w*"]) as messages:
            for number in range(10):
                await kv.publish("news", number)
            await kv.publish("weather", "rain")
            got = [await messages.next(10) for _ in range(11)]
            sent = {*(b"%d" % number for number in range(10)), b"rain"}  # by several nodes, so in any order
            assert {message.data for message in got if message} == sent
        async with kv.listen(shards=["{s}a", "{s}b"]) as messages:
            assert await kv.spublish("{s}a", "one") == 1
            assert await kv.spublish("{s}b", "two") == 1
            assert [(m and m.channel) for m in (await messages.next(10), await messages.next(10))] == [b"{s}a", b"{s}b"]
        with pytest.raises(CrossSlotError):
            kv.listen(shards=["a", "b"])

    run(work)


def test_shards_are_followed_when_their_slot_moves(cluster: Cluster, run: Run) -> None:
    slot = slot_of(b"moving")
    source = cluster.owner(slot)
    target = next(node for node in cluster.primaries() if node is not source)

    async def work(kv: AsyncClient) -> None:
        async with kv.listen(shards=["moving"]) as messages:
            await asyncio.to_thread(cluster.move, slot, target)
            async with asyncio.timeout(20):
                while await messages.next(0.2) is None:
                    await kv.spublish("moving", "x")
            assert messages.gaps == 1
        await asyncio.to_thread(cluster.move, slot, source)

    run(work)


def test_what_is_built_on_commands(run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        view = kv.ns("app:").typed(serializers.JSON)
        for key in KEYS[:20]:
            await view.set(key, {"key": key})
        assert await view.mget(*KEYS[:20]) == [{"key": key} for key in KEYS[:20]]
        assert sorted([key async for key in view.scan_iter()]) == sorted(key.encode() for key in KEYS[:20])
        assert len([key async for key in kv.scan_iter(match="app:*")]) == 20
        async with kv.lock("report") as lock:
            assert lock.fence == 1
        assert await kv.get_or_set("page", computed, ttl=60) == b"made"
        async with kv.open("file", "wb") as file:
            await file.write(b"line\n" * 1000)
        async with kv.open("file") as read:
            assert await read.read(5) == b"line\n"
        assert [bool(await kv.rate_limit("login", 2, per=60)) for _ in range(3)] == [True, True, False]
        async with kv.semaphore("{printers}", 2) as semaphore:
            assert semaphore.place in (0, 1)

    run(work)


async def computed() -> bytes:
    return b"made"


def test_fifty_tasks_at_once_share_one_connection_to_each_node(cluster: Cluster, run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        async def own(number: int) -> None:
            for turn in range(20):
                key = f"own:{number}:{turn}"
                await kv.set(key, number)
                assert await kv.get(key) == b"%d" % number
            assert await kv.mget(*(f"own:{number}:{turn}" for turn in range(20))) == [b"%d" % number] * 20

        await asyncio.gather(*map(own, range(50)))

    run(work, name="fifty")

    async def count(kv: AsyncClient) -> None:
        await asyncio.gather(*map(kv.get, KEYS))
        for node in cluster.primaries():
            assert node.ask("CLIENT", "LIST").count(b"name=counted ") == 1

    run(count, name="counted")


def test_the_slots_are_asked_for_by_one_task(cluster: Cluster) -> None:
    async def main() -> None:
        kv = kvclient.aio.connect(cluster.url, timeout=20, name="asker")
        asked = 0
        ask = kv._router._asked  # type: ignore[attr-defined]

        async def counted(*arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            return await ask(*arguments)

        kv._router._asked = counted  # type: ignore[attr-defined]
        assert await asyncio.gather(*map(kv.exists, KEYS[:50])) == [0] * 50
        assert asked <= 51  # what EXISTS is may have been asked by each, who has which slot by one
        kv.close()
        with pytest.raises(ClientClosedError):
            await kv.get("a")
        await nothing_is_open()

    asyncio.run(main())


def test_who_asks_for_the_slots_is_cancelled_and_the_next_asks(run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        router = kv._router  # type: ignore[attr-defined]
        seen, deadline = router.slots, asyncio.get_running_loop().time() + 20
        first = asyncio.create_task(router.refresh(seen, deadline))
        others = [asyncio.create_task(router.refresh(seen, deadline)) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        assert await asyncio.gather(*others) == [None] * 5
        assert first.cancelled()
        assert router.slots is not seen

    run(work)


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


def test_cancellation_storms(run: Run) -> None:
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

    run(work)
    gc.collect()


def test_a_slot_that_moves_loses_nothing(cluster: Cluster, run: Run) -> None:
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
            moved.set()

        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(count(key))
            group.create_task(batches())
            group.create_task(bundles())
            group.create_task(move())
        assert [int(value or 0) for value in await kv.mget(*keys)] == list(done.values())
        assert min(done.values()) > 5

    run(work)


def test_a_primary_that_dies_is_replaced() -> None:
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
            print(f"{sum(found)} increments, {len(failures)} doubtful, {reads} reads, {lost} lost")  # noqa: T201
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


def test_closing_ends_what_is_under_way(cluster: Cluster) -> None:
    async def main() -> None:
        kv = await kvclient.aio.connect(cluster.url, timeout=20)
        waiting = asyncio.create_task(kv.wait(5, timeout=20))
        while not any(pool._borrowed for pool in kv._router._every):  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        kv.close()
        with pytest.raises((ConnectionLostError, ClientClosedError)):
            await waiting
        with pytest.raises(ClientClosedError):
            await kv.ping()
        await nothing_is_open()

    asyncio.run(main())


def test_a_wrong_password(cluster: Cluster) -> None:
    async def main() -> None:
        with pytest.raises(AuthError):
            await kvclient.aio.connect(cluster.url, username="nobody", password="wrong")
        await nothing_is_open()

    asyncio.run(main())
