"""The async client on a real cluster: the calls of one server, by many tasks, while nodes fail and slots move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cluster.harness import Cluster
from cluster.tasks import KEYS, Work, nothing_is_open, together, with_client

import kvclient
import kvclient.aio
from kvclient import serializers
from kvclient.aio import AsyncClient, AsyncWatchingTransaction
from kvclient.aio.cluster.client import AsyncClusterClient
from kvclient.cluster.slots import Address, SlotMap, slot_of
from kvclient.errors import (
    AuthError,
    CannotConnectError,
    ClientClosedError,
    CommandRefusedError,
    ConnectionLostError,
    CrossSlotError,
    PipelineError,
    ServerError,
    TransactionConflictError,
)
from kvclient.protocol import encode_command

Run = Callable[..., None]


@pytest.fixture
def run(cluster: Cluster) -> Run:
    """Runs an async function with a client of an empty cluster; nothing of it is left behind."""

    def start(work: Work, **options: Any) -> None:
        with_client(cluster, work, **options)

    return start


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
        async with kv.pipeline() as p:
            turns = [(p.incr(key), p.incr(key), p.getdel(key)) for key in KEYS]
            size = p.dbsize()
        # A key's commands are run in their order.
        assert {tuple(each.result() for each in turn) for turn in turns} == {(1, 2, b"2")}
        assert size.result() <= len(KEYS)

        async def large(number: int) -> None:
            async with kv.pipeline() as p:
                values = [p.set(f"{key}:{number}", b"%d" % number * 10_000) for key in KEYS]
                whole = p.mget(*(f"{key}:{number}" for key in KEYS))
            assert all(value.result() for value in values)
            assert set(whole.result()) == {b"%d" % number * 10_000}

        await asyncio.gather(*map(large, range(3)))

    run(work)


def test_a_pipeline_of_which_some_is_refused(run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        p = kv.pipeline()
        futures = [p.set("a", "x"), p.incr("a"), p.rename("a", "b"), p.get("a")]
        with pytest.raises(PipelineError, match="2 of 4 commands failed"):
            await p.run()
        assert [type(future.error()) for future in futures] == [type(None), ServerError, CrossSlotError, type(None)]
        assert futures[-1].result() == b"x"
        assert await kv.pipeline().run() == ()
        await kv.ping()
        p = kv.pipeline(raise_errors=False)
        p.incr("a")
        (refused,) = await p.run()
        assert isinstance(refused, ServerError)

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
            await kv.transaction(disturbed, watch=["{u}a"], timeout=1)
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
        seen = router.slots = SlotMap(())
        deadline = asyncio.get_running_loop().time() + 20
        first = asyncio.create_task(router.refresh(seen, deadline))
        others = [asyncio.create_task(router.refresh(seen, deadline)) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        assert await asyncio.gather(*others) == [None] * 5
        assert first.cancelled()
        assert router.slots.primaries

    run(work)


def test_closing_ends_what_is_under_way(cluster: Cluster) -> None:
    async def main() -> None:
        kv = kvclient.aio.connect(cluster.url, timeout=20)
        async with asyncio.TaskGroup() as group, kv:
            waiting = group.create_task(together(kv.wait(5, timeout=20), kv.transaction(for_ever, watch=["k"])))
            router = kv._router  # type: ignore[attr-defined]
            while sum(len(pool._borrowed) for pool in router._every) < 4:
                await asyncio.sleep(0)
            kv.close()
            for outcome in await waiting:
                assert isinstance(outcome, ConnectionLostError | ClientClosedError), outcome
        with pytest.raises(ClientClosedError):
            await kv.get("k")
        await nothing_is_open()

    async def for_ever(t: AsyncWatchingTransaction) -> None:
        while True:
            await t.now.get("k")

    asyncio.run(main())


def test_the_connection_to_a_node_that_has_left_ends_when_its_calls_have(cluster: Cluster, run: Run) -> None:
    async def work(kv: AsyncClient) -> None:
        router = kv._router  # type: ignore[attr-defined]
        stranger = Address("localhost", cluster.nodes[0].port)  # by this name it is no member
        deadline = asyncio.get_running_loop().time() + 20
        connection = await router.connection(stranger, deadline)
        under_way = [connection.send(encode_command((b"WAIT", 5, wait)), 1, deadline) for wait in (100, 1, 200)]
        under_way[2].cancel()
        await router.refresh(router.slots, deadline)
        assert stranger not in router._pools
        for waiting in under_way[:2]:
            assert isinstance((await waiting)[0], int)
        await asyncio.sleep(0)
        assert not connection.usable
        with pytest.raises(CannotConnectError, match="not part of the cluster any more"):
            await router.in_time(connected_of_a_closed(router, stranger), stranger, deadline)

    async def connected_of_a_closed(router: Any, address: Address) -> object:
        pool = router.pool(address)
        pool.retire()
        return await pool.connected()

    run(work)


def test_a_wrong_password(cluster: Cluster) -> None:
    async def main() -> None:
        with pytest.raises(AuthError):
            await kvclient.aio.connect(cluster.url, username="nobody", password="wrong")
        await nothing_is_open()

    asyncio.run(main())
