"""Subscriptions that survive: connections that are killed, servers that are stopped and started, refusals, closing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from client.conftest import FakeServer, Peer

import kvclient
import kvclient.aio
import kvserver
from kvclient import Message
from kvclient.errors import AuthError, CallTimeoutError, ClientClosedError, ConnectionLostError

Make = Callable[..., FakeServer]


def heard(kv: kvclient.Client, messages: kvclient.Subscription, channel: str) -> Message | None:
    """Publish until a message is heard: some go to a connection that has been killed, and count as heard there."""
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(0.001):
            kv.publish(channel, "again")

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        message = messages.next(timeout=30)
    finally:
        ended.set()
        publisher.join(10)
    while messages.next(timeout=0.05) is not None:
        pass
    return message


async def heard_by_task(
    kv: kvclient.aio.AsyncClient, messages: kvclient.aio.AsyncSubscription, channel: str
) -> Message | None:
    waiting = asyncio.create_task(messages.next(timeout=30))
    while not waiting.done():
        await kv.publish(channel, "again")
        await asyncio.sleep(0.001)
    while await messages.next(timeout=0.05) is not None:
        pass
    return await waiting


def test_a_connection_that_is_killed_is_made_again(kv: kvclient.Client) -> None:
    with kv.listen("a", patterns=["p*"], shards=["s"]) as messages:
        kv.publish("a", "one")
        assert next(messages).data == b"one"
        messages.subscribe("b")
        messages.unsubscribe("a")
        for count in (1, 2):
            assert kv.client_kill(type="pubsub") == 1
            assert heard(kv, messages, "b") == Message(b"b", b"again")
            assert messages.gaps == count
        assert kv.pubsub_numsub("a", "b") == {b"a": 0, b"b": 1}
        assert kv.pubsub_numpat() == 1
        assert kv.pubsub_shardnumsub("s") == {b"s": 1}


def test_changing_what_is_listened_to_makes_it_again_too(own_kv: kvclient.Client) -> None:
    with own_kv.listen("a") as messages:
        own_kv.client_kill(type="pubsub")
        messages.subscribe("b")
        own_kv.client_kill(type="pubsub")
        messages.unsubscribe("a")
        assert own_kv.pubsub_numsub("a", "b") == {b"a": 0, b"b": 1}
        assert messages.gaps == 2


def test_a_server_that_is_away_for_a_while() -> None:
    with kvserver.Server(port=0) as server:
        port, url = server.port, server.url
        client = kvclient.connect(url, timeout=5)
        messages = client.listen("a")
    before = time.monotonic()
    assert messages.next(timeout=0.2) is None
    assert time.monotonic() - before < 1
    assert messages.gaps == 1
    messages._timeout = 0.1
    with pytest.raises(CallTimeoutError, match="there is no connection again yet"):
        messages.subscribe("b")
    messages._timeout = 5
    with kvserver.Server(port=port) as server:
        assert heard(client, messages, "b") == Message(b"b", b"again")
        assert messages.gaps == 1
        messages.__exit__()
        client.close()


def test_closing_ends_the_wait_for_another_connection(own_kv: kvclient.Client) -> None:
    with kvserver.Server(port=0) as server:
        client = kvclient.connect(server.url)
        messages = client.listen("a")
    ended = threading.Event()

    def read() -> None:
        assert list(messages) == []
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    while not messages.gaps:
        pass
    messages.close()
    assert ended.wait(3)
    thread.join()
    with pytest.raises(ClientClosedError):
        messages.next()
    messages.__exit__()
    client.close()


def test_a_refusal_is_raised(fake: Make) -> None:
    def once(peer: Peer) -> None:
        peer.greet()
        peer.answer(b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")

    def refusing(peer: Peer) -> None:
        peer.read()
        peer.sock.sendall(b"-WRONGPASS invalid username-password pair\r\n" + b"+OK\r\n" * 2)

    def right(peer: Peer) -> None:
        peer.greet()
        peer.read()

    server = fake(right, once, refusing)
    with kvclient.connect(server.url) as kv:
        messages = kv.listen("a")
        with pytest.raises(AuthError):
            messages.next(timeout=20)
        messages.__exit__()


def test_killed_and_made_again_by_tasks(kv: kvclient.Client, url: str) -> None:
    async def main() -> None:
        async with kvclient.aio.connect(url) as akv, akv.listen("a", patterns=["p*"]) as messages:
            await messages.subscribe("b")
            await messages.unsubscribe("a")
            for count in (1, 2):
                assert await akv.client_kill(type="pubsub") == 1
                assert await heard_by_task(akv, messages, "b") == Message(b"b", b"again")
                assert messages.gaps == count
            assert await akv.pubsub_numpat() == 1
            assert await akv.pubsub_numsub("a", "b") == {b"a": 0, b"b": 1}
            await akv.client_kill(type="pubsub")
            await messages.subscribe("c")
            assert await akv.pubsub_numsub("b", "c") == {b"b": 1, b"c": 1}
            async with akv.listen("a", reconnect=False) as mortal:
                await akv.client_kill(type="pubsub")
                with pytest.raises(ConnectionLostError):
                    await mortal.next(timeout=20)

    asyncio.run(main())


def test_by_tasks_while_the_server_is_away() -> None:
    async def main() -> None:
        server = kvserver.Server(port=0).start()
        port = server.port
        async with kvclient.aio.connect(server.url, timeout=5) as akv, akv.listen("a") as messages:
            await asyncio.to_thread(server.stop)
            before = time.monotonic()
            assert await messages.next(timeout=0.2) is None
            assert await messages.next(timeout=0.1) is None
            assert time.monotonic() - before < 1
            assert messages.gaps == 1
            server = kvserver.Server(port=port).start()
            assert await heard_by_task(akv, messages, "a") == Message(b"a", b"again")
            assert messages.gaps == 1
            await asyncio.to_thread(server.stop)
            loop = asyncio.create_task(_all(messages))
            while messages.gaps < 2:
                await asyncio.sleep(0)
            messages.close()
            assert await asyncio.wait_for(loop, 3) == []

    asyncio.run(main())


async def _all(messages: kvclient.aio.AsyncSubscription) -> list[Message]:
    return [message async for message in messages]
