"""One socket of an event loop, and the replies that are awaited on it.

Any number of tasks may have commands on their way at once: replies come in the order of the commands, so each goes
to the oldest that still waits. A task that is cancelled, or whose time is up, leaves its place in that row; the reply
that then comes for it is dropped. So nobody ever gets another's reply, and nobody has to close a connection that
others use.

Not here: which connection is used for what (pool.py), and the blocking kind (connection.py one folder up).
"""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING, Final

from kvclient.errors import (
    CallTimeoutError,
    CannotConnectError,
    ConnectionLostError,
    KVError,
    ProtocolError,
    ServerError,
)
from kvclient.handshake import check_greeting, greeting, refuses_hello, why_not
from kvclient.protocol import INCOMPLETE, Decoder, decode_single, encode_command

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from kvclient.protocol import Reply
    from kvclient.url import Options

_TOO_SLOW: Final = "the server did not {} in time: give a longer timeout=, or see what keeps the server busy"
_LITTLE: Final = 0.1  # of the time a call was given: with less left, the server's silence has used it up, too


class Waiting(asyncio.Future["list[Reply]"]):
    """The replies to commands that were sent together.

    Attributes:
        count: how many there will be.
        replies: those that have come.
        sent: when they were sent, in the event loop's time.
        deadline: after it nobody waits any more.
        final: whether a server that is silent until then counts as gone; otherwise wait_longer() may follow.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int, deadline: float, *, final: bool = True) -> None:
        super().__init__(loop=loop)
        self.count = count
        self.replies: list[Reply] = []
        self.sent = loop.time()
        self.deadline = deadline
        self.final = final

    def has_little_left(self, now: float) -> bool:
        """Whether its time is up, or so nearly that a connection lost now makes no difference to it."""
        return self.deadline - now < _LITTLE * (self.deadline - self.sent)

    def take(self, reply: Reply) -> bool:
        """Take a reply; whether it was the last."""
        self.replies.append(reply)
        if len(self.replies) < self.count:
            return False
        if not self.done():
            self.set_result(self.replies)
        return True

    def forget(self) -> None:
        """Nobody asks for the replies any more, nor for why there are none."""
        if not self.cancel() and not self.cancelled():
            self.exception()


class AsyncConnection(asyncio.Protocol):
    """A connection to a server. It belongs to one event loop; open() makes it.

    Args:
        listener: called with what the server sends unasked, which otherwise is an error.
        lost: called once, with why, when the connection has ended.
    """

    def __init__(
        self,
        listener: Callable[[Reply], None] | None = None,
        lost: Callable[[KVError], object] = lambda error: None,  # noqa: ARG005
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._lost = lost
        self._decoder = Decoder(on_push=listener)
        self._heard = 0.0  # when bytes last came
        self._row: collections.deque[Waiting] = collections.deque()
        self._corked: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._error: KVError | None = None
        self.protocol = 3

    # ---- what the event loop calls -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand each reply to whoever has waited longest."""
        decoder, row = self._decoder, self._row
        self._heard = self._loop.time()
        if row and row[0].count == 1 and decoder.idle:  # one small reply, and whole: most are
            reply = decode_single(data)
            if reply is not INCOMPLETE:
                row.popleft().take(reply)
                return
        error: KVError | None = None
        try:
            decoder.feed(data)
        except ProtocolError as broken:
            error = broken
        for reply in decoder.replies:
            if row:
                if row[0].take(reply):
                    row.popleft()
            elif self._listener is not None:
                self._listener(reply)
            else:
                error = ProtocolError("the server sent more replies than there were commands")
        decoder.replies.clear()
        if error is not None:
            self.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by whichever side."""
        reason = f": {exc}" if exc else ""
        self.fail(ConnectionLostError(f"the server closed the connection before its reply was complete{reason}"))
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def pause_writing(self) -> None:
        """Much waits to be sent."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Not so much any more."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # ---- opening and closing -------------------------------------------------------------------------------

    async def open(self, options: Options, tls: ssl.SSLContext | None) -> None:
        """Connect and shake hands, within the options' timeout.

        Raises:
            CannotConnectError: nobody is there, or what is there does not behave like a server.
            AuthError: the server does not accept the user and password.
        """
        try:
            async with asyncio.timeout(options.timeout):
                await self._connect(options, tls)
                await self._shake_hands(options)
        except ServerError:
            self.close()
            raise
        except (KVError, OSError, UnicodeError) as error:
            self.close()
            raise CannotConnectError(f"cannot connect to {options.address}: {why_not(error)}") from error
        except BaseException:
            self.close()
            raise

    async def _connect(self, options: Options, tls: ssl.SSLContext | None) -> None:
        if options.path is not None:
            await self._loop.create_unix_connection(lambda: self, options.path)
        else:
            await self._loop.create_connection(lambda: self, options.host, options.port, ssl=tls)

    async def _shake_hands(self, options: Options) -> None:
        self.protocol = options.protocol
        replies = await self._greet(options)
        if self.protocol == 3 and refuses_hello(replies[0]):
            self.protocol = 2
            replies = await self._greet(options)
        check_greeting(replies)

    async def _greet(self, options: Options) -> list[Reply]:
        commands = greeting(options, self.protocol)
        payload = b"".join(map(encode_command, commands))
        waiting = self.send(payload, len(commands), self._loop.time() + options.timeout)
        try:
            return await waiting
        except ConnectionLostError:
            if waiting.replies and isinstance(waiting.replies[0], ServerError):  # it accepts nobody, and says why
                raise CannotConnectError(str(waiting.replies[0])) from None
            raise

    def close(self) -> None:
        """Close the socket; harmless when it is closed already."""
        self.fail(ConnectionLostError("the connection was closed"))

    def retire(self, _answered: object = None) -> None:
        """Close the socket as soon as nobody waits for a reply."""
        left = [waiting for waiting in self._row if not waiting.done()]
        if left:
            left[-1].add_done_callback(self.retire)
        else:
            self.close()

    def fail(self, error: KVError) -> None:
        """Have everybody who waits raise, as well as whoever comes; and close the socket."""
        if self._error is None:
            self._error = error
            row = list(self._row)
            self._row.clear()
            for waiting in row:
                if not waiting.done():
                    waiting.set_exception(error)
            self.resume_writing()
            self._lost(error)
        if self._transport is not None:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        """Whether commands can be sent."""
        return self._error is None and self._transport is not None and not self._transport.is_closing()

    @property
    def ready(self) -> bool:
        """Whether they can be sent at once, without drain()."""
        return self._writable is None and self.usable

    def now(self) -> float:
        """The event loop's time, in which deadlines are."""
        return self._loop.time()

    # ---- commands ------------------------------------------------------------------------------------------

    def send(self, payload: bytes, count: int, deadline: float, *, final: bool = True) -> Waiting:
        """Send so many commands at once; await what this returns for their replies.

        Args:
            payload: the commands.
            count: how many they are.
            deadline: in the event loop's time.
            final: whether a server that has been silent until then counts as gone, for others who wait, too.

        Raises:
            ConnectionLostError: nothing was sent. Awaiting raises it too, with `applied` "unknown", and
                CallTimeoutError.
        """
        if not self.usable:
            raise ConnectionLostError(f"nothing was sent: {self._error or 'the connection is closed'}", applied="no")
        waiting = Waiting(self._loop, count, deadline, final=final)
        if self._row:  # others are on their way: what this turn of the event loop sends goes in one write
            if not self._corked:
                self._loop.call_soon(self._uncork)
            self._corked.append(payload)
        else:
            self._write(payload)
        self._row.append(waiting)
        if self._alarm is None or self._alarm.when() > deadline:
            self._set_alarm(deadline)
        return waiting

    def wait_longer(self, waiting: Waiting, deadline: float) -> Waiting:
        """Await what this returns for replies that have not come by their deadline: they may still come."""
        later = Waiting(self._loop, waiting.count, deadline)
        later.sent, later.replies = waiting.sent, waiting.replies
        if len(later.replies) == later.count:
            later.set_result(later.replies)
        elif waiting in self._row:
            self._row[self._row.index(waiting)] = later
            if self._alarm is None or self._alarm.when() > deadline:
                self._set_alarm(deadline)
        else:
            later.set_exception(self._error or ConnectionLostError("the connection is closed"))
        return later

    def tell(self, payload: bytes) -> None:
        """Send commands whose answers go to the listener.

        Raises:
            ConnectionLostError: nothing was sent.
        """
        if not self.usable:
            raise ConnectionLostError("the connection is closed", applied="no")
        self._write(payload)

    def _uncork(self) -> None:
        payload = b"".join(self._corked)
        self._corked.clear()
        if self.usable:
            self._write(payload)

    def _write(self, payload: bytes) -> None:
        assert self._transport is not None
        self._transport.write(payload)

    async def drain(self, deadline: float) -> None:
        """Wait until the server has taken most of what was sent.

        Raises:
            CallTimeoutError: it did not, and nothing more was sent.
        """
        if self._writable is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    await asyncio.shield(self._writable)
            except TimeoutError:
                raise CallTimeoutError(_TOO_SLOW.format("take the command"), applied="no") from None

    def pause(self) -> None:
        """Let the server wait with what it has to say."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on."""
        if self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def _set_alarm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        """Have those raise whose time is up, and wait for the next. One timer does for all calls of a while."""
        self._alarm = None
        now = self._loop.time()
        late = [waiting for waiting in self._row if waiting.deadline <= now and not waiting.done()]
        last = next((waiting for waiting in late if waiting.final), None)
        is_silent = last is not None and last.sent > self._heard  # not a byte since
        if is_silent:  # calls made together end together, and not the first by its deadline and the rest by its result
            late = [waiting for waiting in self._row if waiting.has_little_left(now) and not waiting.done()]
        for waiting in late:
            waiting.set_exception(CallTimeoutError(_TOO_SLOW.format("reply")))
        if is_silent:  # who comes next is better off on another connection
            self.fail(ConnectionLostError("the server has fallen silent"))
            return
        later = [waiting.deadline for waiting in self._row if not waiting.done()]
        if later:
            self._set_alarm(min(later))
