"""Listening: messages of channels and what MONITOR shows, each on a connection of its own.

Not here: publishing, which any client does; how bytes become messages (protocol.py).
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Self, TypeAlias, TypeVar

from kvclient.errors import (
    CallTimeoutError,
    CannotConnectError,
    ClientClosedError,
    ClusterError,
    ConnectionLostError,
    LoadingError,
    ProtocolError,
    ServerError,
)
from kvclient.protocol import encode_command, to_bytes
from kvclient.retry import pause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kvclient.connection import Connection
    from kvclient.protocol import Key, Reply

T = TypeVar("T")
Asked: TypeAlias = "tuple[tuple[bytes, tuple[Key, ...]], ...]"

_FOREVER: Final = 365 * 86400.0  # seconds; more than any wait, and still a number that a socket takes
_CONFIRMATIONS: Final = frozenset(kind + way for kind in (b"", b"p", b"s") for way in (b"subscribe", b"unsubscribe"))
_monotonic = time.monotonic


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody published.

    Attributes:
        channel: where.
        data: the message.
        pattern: the pattern of yours that the channel matched, if it came by one.
    """

    channel: bytes
    data: bytes
    pattern: bytes | None = None


def message_of(reply: Reply) -> Message | None:
    """What a listener was sent; None if it confirms that a name is listened to, or no longer.

    Raises:
        ServerError: the server refuses.
        ProtocolError: neither.
    """
    if isinstance(reply, ServerError):
        raise reply
    match reply:
        case [b"message" | b"smessage", bytes(channel), bytes(data)]:
            return Message(channel, data)
        case [b"pmessage", bytes(pattern), bytes(channel), bytes(data)]:
            return Message(channel, data, pattern)
        case [bytes(kind), _, int()] if kind in _CONFIRMATIONS:
            return None
    raise ProtocolError("the server sent a listener what is no message")


def named(command: bytes, channels: Iterable[Key], patterns: Iterable[Key], shards: Iterable[Key]) -> Asked:
    """The commands that SUBSCRIBE or UNSUBSCRIBE stands for, each with its names; only those that have any."""
    asked = ((command, tuple(channels)), (b"P" + command, tuple(patterns)), (b"S" + command, tuple(shards)))
    return tuple((name, names) for name, names in asked if names)


class Wanted:
    """What is listened to, to be asked for again on another connection."""

    def __init__(self) -> None:
        self._names: dict[bytes, dict[bytes, None]] = {b"SUBSCRIBE": {}, b"PSUBSCRIBE": {}, b"SSUBSCRIBE": {}}

    def note(self, asked: Asked) -> None:
        """These commands are about to be sent."""
        for command, names in asked:
            wanted = self._names[command.replace(b"UNSUB", b"SUB")]
            for name in map(to_bytes, names):
                if b"UNSUB" in command:
                    wanted.pop(name, None)
                else:
                    wanted[name] = None

    def check(self, reply: Reply) -> None:
        """Make sure that the server does not end what is still wanted: a shard channel, when its slot moves.

        Raises:
            ConnectionLostError: it does.
        """
        match reply:
            case [b"sunsubscribe", bytes(name), int()] if name in self._names[b"SSUBSCRIBE"]:
                raise ConnectionLostError("another node of the cluster tells of this shard channel now", applied="no")

    def all(self) -> Asked:
        """The commands that ask for all of it."""
        return tuple((command, tuple(names)) for command, names in self._names.items() if names)


class _Listener(Generic[T]):
    """A connection that the server talks to. It belongs to one thread, but any thread may close it."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._ready: collections.deque[T] = collections.deque()
        self._closed = False
        self._ended = threading.Event()
        connection.open(_monotonic() + timeout)

    def next(self, timeout: float | None = None) -> T | None:
        """Wait for the next one; None if there was none within `timeout` seconds (default: as long as it takes).

        Raises:
            ConnectionLostError: the server is gone, and this does not connect again.
            ClientClosedError: this was closed.
        """
        deadline = _monotonic() + (_FOREVER if timeout is None else timeout)
        while not self._ready:
            try:
                self._receive(deadline)
            except CallTimeoutError:
                return None
        return self._ready.popleft()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        with contextlib.suppress(ClientClosedError):
            found = self.next()
            if found is not None:
                return found
        raise StopIteration

    def close(self) -> None:
        """Stop listening; a thread that waits for the next one is woken, and its loop ends."""
        self._closed = True
        self._ended.set()
        self._connection.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._connection.close()

    def _receive(self, deadline: float) -> None:
        """Take in what comes next."""
        if self._closed:
            raise ClientClosedError("this listener is closed")
        try:
            replies = self._connection.receive(deadline)
        except ConnectionLostError:
            if self._closed:
                raise ClientClosedError("this listener was closed") from None
            raise
        for reply in replies:
            self._take(reply)

    def _take(self, reply: Reply) -> None:
        raise NotImplementedError


class Subscription(_Listener[Message]):
    """The messages of channels, in the order in which the server sent them; an iterator that waits for the next.

        with client.listen("news", patterns=["sport.*"]) as messages:
            for message in messages:
                print(message.channel, message.data)

    When the connection is lost it makes another and listens to the same. What was published in between is lost, since
    no server keeps messages: `gaps` tells that there may have been some. A server closes the connection of somebody who
    reads too slowly. It belongs to one thread, but any thread may close it.

    Attributes:
        gaps: how often the connection was lost.
    """

    def __init__(self, make: Callable[[], Connection], timeout: float, *, reconnect: bool) -> None:
        super().__init__(make(), timeout)
        self._make = make
        self._reconnects = reconnect
        self._wanted = Wanted()
        self._confirmed = 0
        self._is_lost = False
        self.gaps = 0

    def subscribe(self, *channels: Key, patterns: Iterable[Key] = (), shards: Iterable[Key] = ()) -> None:
        """Listen to more: channels, glob patterns of channels, shard channels. On return, the server sends them.

        Server commands: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE.
        """
        self._change(named(b"SUBSCRIBE", channels, patterns, shards))

    def unsubscribe(self, *channels: Key, patterns: Iterable[Key] = (), shards: Iterable[Key] = ()) -> None:
        """Listen to these no longer. Messages that came before are still there.

        Server commands: UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE.
        """
        self._change(named(b"UNSUBSCRIBE", channels, patterns, shards))

    def _change(self, asked: Asked) -> None:
        deadline = _monotonic() + self._timeout
        self._wanted.note(asked)
        try:
            self._ask(asked, deadline)
        except ConnectionLostError:
            if not self._reconnects or self._closed:
                raise
            self._connect_again(deadline)

    def _ask(self, asked: Asked, deadline: float) -> None:
        """Send commands, and wait until each name is confirmed."""
        self._confirmed = -sum(len(names) for _, names in asked)
        self._connection.send(b"".join(encode_command((name, *names)) for name, names in asked), deadline)
        while self._confirmed < 0:
            super()._receive(deadline)

    def _receive(self, deadline: float) -> None:
        try:
            super()._receive(deadline)
        except ConnectionLostError:
            if not self._reconnects:
                raise
            self._connect_again(deadline)

    def _connect_again(self, deadline: float) -> None:
        """Another connection, on which the same is listened to.

        Raises:
            CallTimeoutError: there was none by the deadline; the next call goes on.
            ServerError: the server refuses. It is not asked again by itself.
            ClientClosedError: this was closed meanwhile.
        """
        if not self._is_lost:
            self._is_lost = True
            self.gaps += 1
        attempt = 0
        while not self._closed:
            attempt += 1
            self._connection.close()
            self._connection = self._make()
            now = _monotonic()
            try:
                self._connection.open(min(deadline, now + self._timeout))
                if not self._closed:
                    self._ask(self._wanted.all(), min(deadline, now + self._timeout))
                    self._is_lost = False
                    return
            except (CannotConnectError, ConnectionLostError, CallTimeoutError, LoadingError, ClusterError):
                if _monotonic() >= deadline:
                    raise CallTimeoutError("there is no connection again yet", applied="no") from None
                self._ended.wait(min(pause_of(attempt), max(0.0, deadline - _monotonic())))
        self._connection.close()
        raise ClientClosedError("this listener was closed")

    def _take(self, reply: Reply) -> None:
        message = message_of(reply)
        if message is None:
            self._wanted.check(reply)
            self._confirmed += 1
        else:
            self._ready.append(message)


class Monitor(_Listener[str]):
    """Every command that the server runs, as a line of text: time, database and address, then the words.

    It costs the server something for each command. Server command: MONITOR.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        super().__init__(connection, timeout)
        self._accepted = False
        deadline = _monotonic() + timeout
        connection.send(encode_command((b"MONITOR",)), deadline)
        while not self._accepted:
            self._receive(deadline)

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, ServerError):
            raise reply
        if not isinstance(reply, bytes):
            raise ProtocolError("the server sent a monitor what is no line")
        if self._accepted:
            self._ready.append(reply.decode("utf-8", "backslashreplace"))
        self._accepted = True
