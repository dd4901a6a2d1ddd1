"""Listening for asyncio: messages of channels, on a connection of their own.

Not here: what a message looks like (listening.py one folder up).
"""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING, Final, Self

from kvclient.aio.connection import AsyncConnection
from kvclient.errors import CallTimeoutError, ClientClosedError, KVError
from kvclient.listening import Message, message_of
from kvclient.protocol import encode_command

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from kvclient.protocol import Key, Reply
    from kvclient.url import Options


_ENOUGH: Final = 1000  # messages that wait for the task; while they do, more wait at the server


class AsyncSubscription:
    """The messages of channels, in the order in which the server sent them; an async iterator.

        async with client.listen("news", patterns=["sport.*"]) as messages:
            async for message in messages:
                print(message.channel, message.data)

    A server closes the connection of somebody who reads too slowly. It belongs to one task.
    """

    def __init__(
        self, options: Options, tls: ssl.SSLContext | None, names: tuple[tuple[bytes, tuple[Key, ...]], ...]
    ) -> None:
        self._options = options
        self._tls = tls
        self._names = names
        self._connection: AsyncConnection | None = None
        self._ready: collections.deque[Message] = collections.deque()
        self._error: KVError | None = None
        self._missing = 0  # confirmations still to come
        self._changed = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        connection = AsyncConnection(self._take, self._end)
        await connection.open(self._options, self._tls)
        self._connection = connection
        try:
            await self._ask(*self._names)
        except BaseException:
            connection.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; a task that waits for the next message is woken, and its loop ends."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            message = await self.next()
        except ClientClosedError:
            raise StopAsyncIteration from None
        assert message is not None
        return message

    async def next(self, timeout: float | None = None) -> Message | None:
        """Wait for the next message; None if there was none within `timeout` seconds (default: as long as it takes).

        Raises:
            ConnectionLostError: the server is gone. What it sent meanwhile to others, nobody keeps for you.
            ClientClosedError: this was closed.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self._ready:
                    await self._wait()
        except TimeoutError as error:
            if isinstance(error, KVError):
                raise
            return None
        message = self._ready.popleft()
        if len(self._ready) < _ENOUGH and self._connection is not None:
            self._connection.resume()
        return message

    async def subscribe(self, *channels: Key, patterns: Iterable[Key] = (), shards: Iterable[Key] = ()) -> None:
        """Listen to more: channels, glob patterns of channels, shard channels. On return, the server sends them.

        Server commands: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE.
        """
        await self._ask(*named(b"SUBSCRIBE", channels, patterns, shards))

    async def unsubscribe(self, *channels: Key, patterns: Iterable[Key] = (), shards: Iterable[Key] = ()) -> None:
        """Listen to these no longer. Messages that came before are still there.

        Server commands: UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE.
        """
        await self._ask(*named(b"UNSUBSCRIBE", channels, patterns, shards))

    async def _ask(self, *commands: tuple[bytes, tuple[Key, ...]]) -> None:
        """Send those that name something, and wait until each name is confirmed."""
        if self._connection is None or self._closed:
            raise ClientClosedError("this subscription is not open: use it in an async with block")
        asked = [(name, names) for name, names in commands if names]
        self._missing += sum(len(names) for _, names in asked)
        self._connection.tell(b"".join(encode_command((name, *names)) for name, names in asked))
        try:
            async with asyncio.timeout(self._options.timeout):
                while self._missing > 0:
                    await self._wait()
        except TimeoutError as error:
            if isinstance(error, KVError):
                raise
            raise CallTimeoutError("the server did not confirm in time") from None

    async def _wait(self) -> None:
        """Until something comes."""
        if self._closed:
            raise ClientClosedError("this subscription is closed")
        if self._error is not None:
            raise self._error
        self._changed.clear()
        await self._changed.wait()

    def _take(self, reply: Reply) -> None:
        """What the connection calls for all that comes."""
        try:
            message = message_of(reply)
        except KVError as error:
            self._end(error)
            return
        if message is None:
            self._missing -= 1
        else:
            self._ready.append(message)
            if len(self._ready) >= _ENOUGH and self._connection is not None:
                self._connection.pause()
        self._changed.set()

    def _end(self, error: KVError) -> None:
        """What the connection calls when it is lost."""
        self._error = error
        self._changed.set()


def named(
    command: bytes, channels: tuple[Key, ...], patterns: Iterable[Key], shards: Iterable[Key]
) -> tuple[tuple[bytes, tuple[Key, ...]], ...]:
    """The commands that SUBSCRIBE or UNSUBSCRIBE stands for, each with its names."""
    return (command, channels), (b"P" + command, tuple(patterns)), (b"S" + command, tuple(shards))
