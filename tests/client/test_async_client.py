"""The async client: the same commands, awaited; tasks that share a connection, are cancelled, wait too long."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import kvclient
import kvclient.aio
import kvserver
from kvclient.aio import AsyncClient
from kvclient.commands import Commands
from kvclient.commands.base import Command, _commands_of
from kvclient.errors import (
    AuthError,
    BadURLError,
    CallTimeoutError,
    CannotConnectError,
    ClientClosedError,
    CommandRefusedError,
    ConnectionLostError,
    KVError,
    PipelineError,
    PoolTimeoutError,
    ProtocolError,
    ServerError,
    TransactionConflictError,
)
from tests.client.conftest import FakeServer, Peer

Make = Callable[..., FakeServer]
Work = Callable[[AsyncClient], Awaitable[None]]


@pytest.fixture(params=[3, 2], ids=["resp3", "resp2"])
def run(url: str, request: pytest.FixtureRequest) -> Callable[[Work], None]:
    """Runs an async function with a client of an empty server."""

    def start(work: Work, **options: int) -> None:
        async def main() -> None:
            async with kvclient.aio.connect(url, protocol=request.param, **options) as kv:  # type: ignore[arg-type]
                await kv.flushall()
                await work(kv)

        asyncio.run(main())

    return start


def test_commands(run: Callable[[Work], None]) -> None:
    async def work(kv: AsyncClient) -> None:
        assert await kv.set("k", b"\0\r\n", ttl=100) is True
        assert await kv.get("k") == b"\0\r\n"
        assert await kv.get("none") is None
        assert 0 < (await kv.ttl("k") or 0) <= 100
        assert await kv.mget("k", "none") == [b"\0\r\n", None]
        assert await kv.execute("ECHO", "words") == b"words"
        with pytest.raises(ServerError, match="not an integer"):
            await kv.incr("k")
        assert await kv.incr("count") == 1
        assert sorted([key async for key in kv.scan_iter(count=1)]) == [b"count", b"k"]
        with pytest.raises(CommandRefusedError):
            await kv.execute("MULTI")

    run(work)


def test_every_command_is_there() -> None:
    names = [name for name, _ in _commands_of(Commands)]
    assert len(names) > 100
    for name in names:
        method = inspect.getattr_static(AsyncClient, name)
        assert not isinstance(method, Command)
        assert inspect.iscoroutinefunction(method), name
        assert inspect.signature(method) == inspect.signature(inspect.getattr_static(kvclient.Client, name))
        assert method.__doc__


def test_a_command_that_waits_by_design_holds_nobody_up(run: Callable[[Work], None]) -> None:
    async def work(kv: AsyncClient) -> None:
        waiting = asyncio.create_task(kv.wait(1, timeout=2))
        await kv.set("k", 1)
        for _ in range(100):
            assert await kv.get("k") == b"1"
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await kv.get("k") == b"1"

    run(work)


def test_tasks_share_one_connection(run: Callable[[Work], None]) -> None:
    async def work(kv: AsyncClient) -> None:
        async def own(number: int) -> None:
            for turn in range(20):
                await kv.set(f"k{number}", f"{number}:{turn}")
                assert await kv.get(f"k{number}") == f"{number}:{turn}".encode()

        await asyncio.gather(*map(own, range(100)))
        assert len({entry["id"] for entry in await kv.client_list() if entry["lib-name"] == "kvclient"}) == 1

    run(work)


def test_cancelled_tasks_take_nobodys_reply(run: Callable[[Work], None]) -> None:
    """Ten thousand calls, of which many are cancelled while they wait: none of the others gets what was not for it."""
    answered = cancelled = 0

    async def work(kv: AsyncClient) -> None:
        source = random.Random(1)

        async def ask(number: int) -> None:
            nonlocal answered
            assert await kv.echo(f"token {number}") == f"token {number}".encode()
            answered += 1

        async def batch(numbers: range) -> None:
            nonlocal cancelled
            tasks = [asyncio.create_task(ask(number)) for number in numbers]
            for _ in range(source.randrange(6)):
                await asyncio.sleep(0)
            for task in tasks:
                if source.random() < 0.3:
                    cancelled += task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome

        await kv.ping()
        shared = kv._pool.shared
        for start in range(0, 10_000, 50):
            await batch(range(start, start + 50))
        assert kv._pool.shared is shared
        assert shared is not None
        assert shared.usable

    run(work)
    assert cancelled > 1000
    assert answered > 5000


async def leave_by_an_exception(kv: AsyncClient) -> None:
    async with kv.pipeline() as p:
        p.delete("count")
        raise ZeroDivisionError


def test_pipelines(run: Callable[[Work], None]) -> None:
    async def work(kv: AsyncClient) -> None:
        async with kv.pipeline() as p:
            futures = [p.incr("count") for _ in range(20_000)]
            text = p.echo("x" * 100_000)
        assert [future.result() for future in futures] == list(range(1, 20_001))
        assert text.result() == b"x" * 100_000
        await kv.set("text", "no number")
        p = kv.pipeline()
        wrong, right = p.incr("text"), p.incr("count")
        with pytest.raises(PipelineError, match="1 of 2 commands failed"):
            await p.run()
        assert right.result() == 20_001
        with pytest.raises(ServerError):
            wrong.result()
        with pytest.raises(ZeroDivisionError):
            await leave_by_an_exception(kv)
        assert await kv.exists("count") == 1
        assert await kv.pipeline().run() == ()

    run(work)


def test_pipelines_of_many_tasks(run: Callable[[Work], None]) -> None:
    async def work(kv: AsyncClient) -> None:
        async def own(number: int) -> None:
            async with kv.pipeline() as p:
                echoes = [p.echo(f"{number}:{turn}" * 50) for turn in range(300)]
            assert [echo.result() for echo in echoes] == [f"{number}:{turn}".encode() * 50 for turn in range(300)]

        await asyncio.gather(*map(own, range(30)))

    run(work)


def test_transactions(run: Callable[[Work], None]) -> None:
    async def work(kv: AsyncClient) -> None:
        async def transfer(number: int) -> None:
            async with kv.transaction() as t:
                t.decrby("a", number)
                total = t.incrby("b", number)
                t.set("filler", b"x" * 20_000)  # more than one chunk, and yet nobody comes in between
            assert total.result() > 0

        async def look() -> None:
            for _ in range(50):
                a, b = await kv.mget("a", "b")
                assert int(a or 0) + int(b or 0) == 0

        await asyncio.gather(*map(transfer, range(1, 30)), look())

    run(work)


def test_watching(run: Callable[[Work], None]) -> None:
    async def work(kv: AsyncClient) -> None:
        attempts = 0

        async def double(t: kvclient.aio.AsyncWatchingTransaction) -> int:
            nonlocal attempts
            attempts += 1
            value = int(await t.now.get("k") or 0)
            if attempts < 3:
                await kv.incr("k")
            t.set("k", value * 2)
            return value

        await kv.set("k", 10)
        assert await kv.transaction(double, watch=["k"]) == 12
        assert (attempts, await kv.get("k")) == (3, b"24")

        async def only_read(t: kvclient.aio.AsyncWatchingTransaction) -> bytes | None:
            return await t.now.get("k")

        assert await kv.transaction(only_read, watch=["k"]) == b"24"

        async def in_vain(t: kvclient.aio.AsyncWatchingTransaction) -> None:
            await kv.incr("k")
            t.set("k", 0)

        with pytest.raises(TransactionConflictError):
            await kv.transaction(in_vain, watch=["k"], timeout=0.2)

    run(work)


def test_listening(run: Callable[[Work], None]) -> None:
    async def work(kv: AsyncClient) -> None:
        async with kv.listen("news", patterns=["n*"]) as messages:
            assert await kv.publish("news", "one") == 2
            got = [await messages.next(), await messages.next()]
            assert [(m.channel, m.data, m.pattern) for m in got if m] == [
                (b"news", b"one", None),
                (b"news", b"one", b"n*"),
            ]
            assert await messages.next(timeout=0.01) is None
            await messages.subscribe("b", shards=["s"])
            await messages.unsubscribe("news", patterns=["n*"])
            assert await kv.spublish("s", "shard") == 1
            async with kv.pipeline() as p:
                for number in range(5000):
                    p.publish("b", number)
            seen = [message.data async for message in _first(messages, 5001)]
            assert seen == [b"shard", *(b"%d" % number for number in range(5000))]
            later = asyncio.create_task(_all(messages))
            await kv.publish("b", "last")
            await kv.ping()
            messages.close()
            assert [message.data for message in await later] in ([], [b"last"])
        with pytest.raises(ClientClosedError):
            await messages.next()

    run(work)


async def _first(messages: kvclient.aio.AsyncSubscription, count: int) -> object:
    for _ in range(count):
        message = await messages.next()
        assert message is not None
        yield message


async def _all(messages: kvclient.aio.AsyncSubscription) -> list[kvclient.Message]:
    return [message async for message in messages]


# ---- a server that answers wrongly -----------------------------------------------------------------------------


def with_client(server: FakeServer, work: Work, **options: float) -> None:
    async def main() -> None:
        async with kvclient.aio.connect(server.url, **options) as kv:  # type: ignore[arg-type]
            await work(kv)

    asyncio.run(main())


def answering(*replies: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(*replies)

    return script


def right(peer: Peer) -> None:
    peer.greet()
    while peer.read():
        peer.sock.sendall(b"$5\r\nright\r\n")


def test_a_reply_cut_anywhere(fake: Make) -> None:
    reply = b"|1\r\n+a\r\n:1\r\n$5\r\nright\r\n"

    def script(peer: Peer) -> None:
        peer.greet()
        for cut in range(1, len(reply)):
            if not peer.read():
                return
            peer.sock.sendall(reply[:cut])
            peer.sock.sendall(reply[cut:])

    async def work(kv: AsyncClient) -> None:
        for _ in range(1, len(reply)):
            assert await kv.get("k") == b"right"

    with_client(fake(script), work)


@pytest.mark.parametrize(
    "reply", [b"?", b"$x\r\n", b":1\r\n", b"+a\r\n+b\r\n", b"x" * 100_000, b"*1\r\n$1\r\na\r\n", b">1\r\n"]
)
def test_nonsense_is_an_error_and_the_next_call_has_another_connection(fake: Make, reply: bytes) -> None:
    async def work(kv: AsyncClient) -> None:
        with pytest.raises(KVError):
            await kv.mset({"k": 1})
        assert await kv.get("k") == b"right"

    server = fake(answering(reply), right)
    if reply in (b":1\r\n", b"*1\r\n$1\r\na\r\n"):  # a reply, though of a wrong type: the connection is fine
        server = fake(answering(reply, b"$5\r\nright\r\n"))
    with_client(server, work)


def test_lost_before_the_reply(fake: Make) -> None:
    """What only reads is asked again; what writes is not, for it may have been done."""
    commands: list[bytes] = []

    def cut(peer: Peer) -> None:
        peer.greet()
        commands.append(peer.read())

    async def work(kv: AsyncClient) -> None:
        with pytest.raises(ConnectionLostError) as lost:
            await kv.incr("k")
        assert lost.value.applied == "unknown"
        assert await kv.get("k") == b"right"

    with_client(fake(cut, cut, right), work)
    assert [b"INCR" in command for command in commands] == [True, False]


def test_a_server_that_falls_silent(fake: Make) -> None:
    def silent(peer: Peer) -> None:
        peer.greet()
        while peer.read():
            pass

    async def work(kv: AsyncClient) -> None:
        calls = []
        for number in range(3):
            calls.append(asyncio.create_task(kv.incr(f"k{number}")))
            await asyncio.sleep(0.01)  # as in a busy program
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, CallTimeoutError)
            assert outcome.applied == "unknown"
        assert await kv.get("k") == b"right"

    with_client(fake(silent, right), work, timeout=2.0)


def test_a_late_reply_is_nobodys(fake: Make) -> None:
    """The first call's time is up, others go on; then its reply comes."""
    released = asyncio.Event()

    def late(peer: Peer) -> None:
        peer.greet()
        first = peer.read()
        assert b"first" in first
        peer.sock.sendall(b"$4\r\nla")  # something comes, so the connection is worth keeping
        loop.call_soon_threadsafe(released.set)
        second = peer.read()
        assert b"second" in second
        peer.sock.sendall(b"te\r\n$5\r\nright\r\n")

    async def work(kv: AsyncClient) -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        with pytest.raises(CallTimeoutError):
            await kv.execute("ECHO", "first", timeout=0.2)
        await released.wait()
        assert await kv.execute("ECHO", "second", timeout=20) == b"right"

    loop: asyncio.AbstractEventLoop
    with_client(fake(late), work)


def test_nobody_there(fake: Make) -> None:
    async def main() -> None:
        with pytest.raises(CannotConnectError, match="is the server running there"):
            await kvclient.aio.connect("redis://127.0.0.1:1")
        with pytest.raises(BadURLError):
            kvclient.aio.connect("http://x")
        with pytest.raises(CannotConnectError, match="ERR max number of clients reached"):
            await kvclient.aio.connect(
                fake(lambda peer: peer.sock.sendall(b"-ERR max number of clients reached\r\n")).url
            )
        with pytest.raises(CannotConnectError, match=r"timed out|did not reply in time"):
            await kvclient.aio.connect(fake(lambda peer: peer.read() and peer.read()).url, timeout=0.2)

    asyncio.run(main())


def test_a_password(tmp_path: Path) -> None:
    async def main() -> None:
        with kvserver.Server(port=None, unix_socket=str(tmp_path / "s"), requirepass="secret") as server:
            with pytest.raises(AuthError):
                await kvclient.aio.connect(server.url, password="wrong")
            async with kvclient.aio.connect(server.url, password="secret", db=3, name="me") as kv:
                assert await kv.client_getname() == b"me"
                assert "3" in str(kv)

    asyncio.run(main())


def test_connections_for_one_task_are_bounded(own_url: str) -> None:
    async def main() -> None:
        async with kvclient.aio.connect(own_url, max_connections=1, timeout=0.3) as kv:
            held, enough = asyncio.Event(), asyncio.Event()

            async def hold(_: kvclient.aio.AsyncWatchingTransaction) -> None:
                held.set()
                await enough.wait()

            holder = asyncio.create_task(kv.transaction(hold, watch=["k"]))
            await held.wait()
            with pytest.raises(PoolTimeoutError):
                await kv.transaction(hold, watch=["k"])
            enough.set()
            await holder

    asyncio.run(main())


def test_closing(own_url: str) -> None:
    async def main() -> None:
        kv = await kvclient.aio.connect(own_url)
        waiting: asyncio.Task[int] = asyncio.create_task(kv.wait(1, timeout=30))
        await kv.ping()
        while not kv._pool._borrowed:
            await asyncio.sleep(0)
        kv.close()
        with pytest.raises((ConnectionLostError, ClientClosedError)):
            await waiting
        with pytest.raises(ClientClosedError):
            await kv.ping()
        kv.close()

    asyncio.run(main())


def test_nonsense_ends_a_subscription(fake: Make) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n$5\r\nno\r\nx\r\n")

    async def work(kv: AsyncClient) -> None:
        async with kv.listen("c") as messages:
            with pytest.raises(ProtocolError):
                await messages.next(timeout=20)

    with_client(fake(right, script), work)
