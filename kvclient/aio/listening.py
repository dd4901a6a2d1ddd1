"""Listening for asyncio: messages of channels, on a connection of their own.

Not here: what a message looks like (listening.py one folder up).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from typing import TYPE_CHECKING, Final, Self

from kvclient.aio.connection import AsyncConnection
from kvclient.errors import (
    CallTimeoutError,
    CannotConnectError,
    ClientClosedError,
    ClusterError,
    ConnectionLostError,
    KVError,
    LoadingError,
)
from kvclient.listening import Message, Wanted, message_of, named
from kvclient.protocol import encode_command
from kvclient.retry import pause_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable

    from kvclient.listening import Asked
    from kvclient.protocol import Key, Reply
    from kvclient.url import Options

_ENOUGH: Final = 1000  # messages that wait for the task; while they do, more wait at the server


class AsyncSubscription:
    """The messages of channels, in the order in which the server sent them; an async iterator.

        async with client.listen("news", patterns=["sport.*"]) as messages:
            async for message in messages:
                print(message.channel, message.data)

    When the connection is lost it makes another and listens to the same. What was published in between is lost, since
    no server keeps messages: `gaps` tells that there may have been some. A server closes the connection of somebody who
    reads too slowly. It belongs to one task.

    Attributes:
        gaps: how often the connection was lost.
    """

    def __init__(
        self,
        find: Callable[[], Awaitable[Options]],
        timeout: float,
        tls: ssl.SSLContext | None,
        asked: Asked,
        *,
        reconnect: bool,
    ) -> None:
        self._find = find  # the server to connect to, now
        self._timeout = timeout
        self._tls = tls
        self._reconnects = reconnect
        self._wanted = Wanted()
        self._wanted.note(asked)
        self._connection: AsyncConnection | None = None
        self._ready: collections.deque[Message] = collections.deque()
        self._error: KVError | None = None
        self._missing = 0  # confirmations still to come
        self._changed = asyncio.Event()
        self._closed = False
        self.gaps = 0

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def _connect(self) -> None:
        """A connection on which everything that is wanted is listened to."""
        options = await self._find()
        connection = AsyncConnection(self._take, lambda error: self._end(connection, error))
        self._connection, self._error, self._missing = connection, None, 0
        try:
            await connection.open(options, self._tls)
            await self._ask(self._wanted.all())
        except BaseException:
            connection.close()
            raise

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
            ConnectionLostError: the server is gone, and this does not connect again.
            ClientClosedError: this was closed.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self._ready:
                    try:
                        await self._wait()
                    except ConnectionLostError:
                        if not self._reconnects:
                            raise
                        await self._connect_again()
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
        await self._change(named(b"SUBSCRIBE", channels, patterns, shards))

    async def unsubscribe(self, *channels: Key, patterns: Iterable[Key] = (), shards: Iterable[Key] = ()) -> None:
        """Listen to these no longer. Messages that came before are still there.

        Server commands: UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE.
        """
        await self._change(named(b"UNSUBSCRIBE", channels, patterns, shards))

    async def _change(self, asked: Asked) -> None:
        if self._closed or (self._connection is None and self._error is None):
            raise ClientClosedError("this subscription is not open: use it in an async with block")
        self._wanted.note(asked)
        try:
            await self._ask(asked)
        except ConnectionLostError:
            if not self._reconnects:
                raise
            try:
                async with asyncio.timeout(self._timeout):
                    await self._connect_again()
            except TimeoutError as error:
                if isinstance(error, KVError):
                    raise
                raise CallTimeoutError("there is no connection again yet", applied="no") from None

    async def _connect_again(self) -> None:
        """As often as it takes; who calls this says for how long.

        Raises:
            ServerError: the server refuses. It is not asked again by itself.
            ClientClosedError: this was closed meanwhile.
        """
        if self._connection is not None and self._error is not None:  # and not since an earlier call
            self.gaps += 1
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._connect()
            except (CannotConnectError, ConnectionLostError, CallTimeoutError, LoadingError, ClusterError):
                self._error = self._lost()
            except asyncio.CancelledError:
                self._error = self._lost()
                raise
            else:
                return
            if not self._closed:
                with contextlib.suppress(TimeoutError):
                    self._changed.clear()
                    async with asyncio.timeout(pause_of(attempt)):
                        await self._changed.wait()
            if self._closed:
                raise ClientClosedError("this subscription is closed")

    def _lost(self) -> ConnectionLostError:
        """What whoever waits next is to find: that there is no connection, and that this gap is counted."""
        self._connection = None
        return ConnectionLostError("there is no connection again yet", applied="no")

    async def _ask(self, asked: Asked) -> None:
        """Send commands, and wait until each name is confirmed."""
        if self._connection is None:
            raise ConnectionLostError("there is no connection again yet", applied="no")
        self._missing += sum(len(names) for _, names in asked)
        self._connection.tell(b"".join(encode_command((name, *names)) for name, names in asked))
        try:
            async with asyncio.timeout(self._timeout):
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
            if message is None:
                self._wanted.check(reply)
        except KVError as error:
            if self._connection is not None:
                self._connection.fail(error)
            return
        if message is None:
            self._missing -= 1
        else:
            self._ready.append(message)
            if len(self._ready) >= _ENOUGH and self._connection is not None:
                self._connection.pause()
        self._changed.set()

    def _end(self, connection: AsyncConnection, error: KVError) -> None:
        """What a connection calls when it is lost."""
        if connection is self._connection:
            self._error = error
            self._changed.set()
