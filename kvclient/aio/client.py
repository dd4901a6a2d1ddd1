"""The async client: commands that are awaited.

Not here: which commands there are (commands/), how a socket is used (connection.py), which one (pool.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from kvclient.aio.listening import AsyncSubscription
from kvclient.aio.once import AsyncOnce
from kvclient.aio.pipeline import AsyncPipeline
from kvclient.aio.pool import AsyncPool
from kvclient.aio.toolbox import AsyncToolbox
from kvclient.aio.transaction import AsyncTransaction, watching
from kvclient.client import has_moved, tls_context
from kvclient.commands import refuse_connection_commands, to
from kvclient.errors import CommandRefusedError, KVError, ServerError
from kvclient.listening import named
from kvclient.observer import name_of, told
from kvclient.pipeline import NOT_IN_A_NAMESPACE, Manner
from kvclient.protocol import encode_command, to_bytes
from kvclient.recipes.caching import Cache
from kvclient.retry import pause_before_retry
from kvclient.serializers import PLAIN, In, Out, Serializer
from kvclient.text import escape_glob
from kvclient.url import Options, default_url, parse_url

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Sequence

    from kvclient.aio.transaction import Watcher
    from kvclient.cluster.slots import SlotMap
    from kvclient.commands.base import Args
    from kvclient.observer import Observer
    from kvclient.protocol import Key, Name, Reply, Value

T = TypeVar("T")
X = TypeVar("X")
_monotonic = time.monotonic


@overload
def connect(
    url: str | None = None, *, observer: Observer | None = None,
    timeout: float | None = None, max_connections: int | None = None, max_idle: float | None = None,
    retries: int | None = None, name: str | None = None, username: str | None = None, password: str | None = None,
    db: int | None = None, protocol: Literal[2, 3] | None = None, tls: ssl.SSLContext | None = None,
) -> AsyncClient: ...  # fmt: skip
@overload
def connect(
    url: str | None = None, *, serializer: Serializer[In, Out], observer: Observer | None = None,
    timeout: float | None = None, max_connections: int | None = None, max_idle: float | None = None,
    retries: int | None = None, name: str | None = None, username: str | None = None, password: str | None = None,
    db: int | None = None, protocol: Literal[2, 3] | None = None, tls: ssl.SSLContext | None = None,
) -> AsyncClient[In, Out]: ...  # fmt: skip
def connect(
    url: str | None = None,
    *,
    serializer: Serializer[Any, Any] = PLAIN,
    observer: Observer | None = None,
    timeout: float | None = None,
    max_connections: int | None = None,
    max_idle: float | None = None,
    retries: int | None = None,
    name: str | None = None,
    username: str | None = None,
    password: str | None = None,
    db: int | None = None,
    protocol: Literal[2, 3] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncClient[Any, Any]:
    """A client of kvserver, Redis or Valkey, for one event loop. Await it, or enter it, to be connected.

        kv = await kvclient.aio.connect(url)        # close it with kv.close()
        async with kvclient.aio.connect(url) as kv: ...

    The arguments are those of kvclient.connect(); max_connections bounds the connections that transactions which
    watch, and commands that block, have for themselves.

    Raises:
        BadURLError: the URL or an option makes no sense. When awaited: as kvclient.connect().
    """
    options = parse_url(
        url or default_url(), timeout=timeout, max_connections=max_connections, max_idle=max_idle, retries=retries,
        name=name, username=username, password=password, db=db, protocol=protocol,
        tls=True if tls is not None else None,
    )  # fmt: skip
    if options.nodes:
        from kvclient.aio.cluster.client import AsyncClusterClient  # here, since few need it

        return AsyncClusterClient(options, tls, serializer, observer)
    return AsyncClient(options, tls, serializer, observer)


class AsyncClient(AsyncToolbox[In, Out]):
    """A server, as an object whose methods are its commands, each to be awaited. The tasks of one event loop share it.

    Commands of different tasks go over one connection, together where they come together. A task that is cancelled
    disturbs no other.
    """

    def __init__(
        self,
        options: Options,
        tls: ssl.SSLContext | None,
        serializer: Serializer[In, Out],
        observer: Observer | None = None,
    ) -> None:
        super().__init__(serializer)
        self.options = options
        self._observer = observer
        self._timeout = options.timeout
        self._tls = tls if tls is not None or not options.tls else tls_context(options)
        self._cache = Cache(_monotonic)
        self._begin()

    def _begin(self) -> None:
        """Make what connections are had from. None is opened yet."""
        self._pool = AsyncPool(self.options, self._tls, self._observer)

    def __repr__(self) -> str:
        within = f" in {self._prefix.decode()!r}" if self._prefix else ""
        return f"<kvclient.aio.AsyncClient {self.options.address} db={self.options.db}{within}>"

    # ---- views ---------------------------------------------------------------------------------------------

    def ns(self, prefix: str) -> AsyncClient[In, Out]:
        """The keys that begin with a prefix, as a client that knows them without it. See Client.ns()."""
        return self._view(self.serializer, self._prefix + prefix.encode())

    def typed(self, serializer: Serializer[T, X]) -> AsyncClient[T, X]:
        """The same keys, with values of other types. See Client.typed()."""
        return self._view(serializer, self._prefix)

    @property
    def once(self) -> AsyncOnce[In, Out]:
        """The same commands, each applied once, however often the connection is lost. See Client.once."""
        return AsyncOnce(self, self._prefix)

    @property
    def _everything(self) -> AsyncClient:
        """The client outside of all namespaces, with values as bytes."""
        return self._view(PLAIN, b"")

    def _view(self, serializer: Serializer[T, X], prefix: bytes) -> AsyncClient[T, X]:
        view: Any = copy.copy(self)
        view.show(serializer, prefix)
        shown: AsyncClient[T, X] = view
        return shown

    # ---- running commands ----------------------------------------------------------------------------------

    async def execute(self, *args: Value, timeout: float | None = None) -> Reply:
        """Run any command, given word by word, and return the server's reply. See Client.execute().

        Raises:
            ServerError, CommandRefusedError, KVError: as there.
        """
        refuse_connection_commands(args)
        if self._prefix:
            raise CommandRefusedError(NOT_IN_A_NAMESPACE)
        seconds = self._timeout if timeout is None else timeout
        return await self.run(args, to.anything, False, seconds, self.options.retries)

    def _submit(
        self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None
    ) -> Coroutine[object, object, T]:
        if patience is not None:
            call = self._run_apart(words, convert, self._timeout + patience)
        else:
            call = self._run(encode_command(words), convert, safe, self._timeout, self.options.retries)
        return call if self._observer is None else self._observed(name_of(words), call)

    async def _observed(self, name: str, call: Coroutine[object, object, T]) -> T:
        with self._told(name):
            return await call

    def _told(self, name: str, count: int = 1) -> contextlib.AbstractContextManager[None]:
        """For a with block that is a call: the observer is told of it at its end, if there is one."""
        return told(self._observer, self.options, name, count)

    async def run(self, words: Args, convert: Callable[[Reply], T], safe: bool, timeout: float, retries: int) -> T:
        """Run one command, made again as often as `retries` says. For the modules that are part of a client."""
        with self._told(name_of(words)):
            return await self._run(encode_command(words), convert, safe, timeout, retries)

    async def _run(self, payload: bytes, convert: Callable[[Reply], T], safe: bool, timeout: float, retries: int) -> T:
        """Send one command and convert its reply; again if it failed and that cannot apply it twice."""
        pool = self._pool
        deadline = _monotonic() + timeout
        attempt = 1
        while True:
            try:
                connection = pool.shared
                if connection is None or not connection.ready:
                    connection = await pool.ready(deadline - _monotonic())
                reply = (await connection.send(payload, 1, connection.now() + deadline - _monotonic()))[0]
                if isinstance(reply, ServerError):
                    raise reply
            except KVError as error:
                left = deadline - _monotonic()
                pause = pause_before_retry(error, attempt, safe=safe, retries=retries, left=left)
                if pause is None:
                    raise
            else:
                return convert(reply)
            await asyncio.sleep(pause)
            attempt += 1

    async def _run_apart(self, args: Args, convert: Callable[[Reply], T], timeout: float) -> T:
        """Send a command that the server may take its time for, where nobody waits behind it."""
        async with self._pool.borrowed(timeout) as connection:
            (reply,) = await connection.send(encode_command(args), 1, connection.now() + timeout)
        if isinstance(reply, ServerError):
            raise reply
        return convert(reply)

    def pipeline(self, *, raise_errors: bool = True, timeout: float | None = None) -> AsyncPipeline[In, Out]:
        """Collect commands in an async with block and send them together at its end. See Client.pipeline()."""
        return AsyncPipeline(self._pool.connected, self._manner(timeout, raise_errors=raise_errors))

    def _manner(self, timeout: float | None, *, raise_errors: bool = True) -> Manner[In, Out]:
        seconds = self._timeout if timeout is None else timeout
        return Manner(self.serializer, self._prefix, seconds, self.options.retries, raise_errors, self._told)

    @overload
    def transaction(self, *, timeout: float | None = None) -> AsyncTransaction[In, Out]: ...
    @overload
    def transaction(
        self, work: Watcher[In, Out, T], *, watch: Iterable[Key], timeout: float | None = None
    ) -> Coroutine[object, object, T]: ...
    def transaction(
        self,
        work: Watcher[In, Out, T] | None = None,
        *,
        watch: Iterable[Key] = (),
        timeout: float | None = None,
    ) -> AsyncTransaction[In, Out] | Coroutine[object, object, T]:
        """Run commands together, with nobody else's in between. See Client.transaction().

        Without `work`, collect them in an async with block. With `work`, an async function, and keys to watch: await
        what this returns; it returns what `work` returned.

            async def buy(t):
                if int(await t.now.get("stock") or 0) > 0:
                    t.decr("stock")

            await client.transaction(buy, watch=["stock"])

        Server commands: MULTI, EXEC, WATCH, UNWATCH.

        Raises:
            TransactionConflictError: in all that time somebody else was quicker.
        """
        return self._transaction(timeout) if work is None else self._watching(work, watch, timeout)

    def _transaction(self, timeout: float | None) -> AsyncTransaction[In, Out]:
        return AsyncTransaction(self._pool.connected, self._manner(timeout))

    async def _watching(self, work: Watcher[In, Out, T], watch: Iterable[Key], timeout: float | None) -> T:
        return await watching(self._pool, work, watch, self._manner(timeout))

    # ---- listening and iterating ---------------------------------------------------------------------------

    def listen(
        self, *channels: Key, patterns: Iterable[Key] = (), shards: Iterable[Key] = (), reconnect: bool = True
    ) -> AsyncSubscription:
        """Listen to channels, to glob patterns of channels, to shard channels; on a connection of its own.

            async with client.listen("news") as messages:
                async for message in messages:
                    ...

        When the connection is lost it is made again, and `messages.gaps` counts that; with reconnect=False,
        ConnectionLostError is raised. Server commands: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE.
        """
        names = [*shards]
        asked = named(b"SUBSCRIBE", channels, patterns, names)
        return AsyncSubscription(self._finder(channels, names), self._timeout, self._tls, asked, reconnect=reconnect)

    def _finder(self, channels: Sequence[Key], shards: Sequence[Key]) -> Callable[[], Awaitable[Options]]:
        """What finds, when a connection is made, the server that tells of these channels."""
        del channels, shards

        async def find() -> Options:
            return self.options

        return find

    async def scan_iter(
        self,
        *,
        match: Name | None = None,
        count: int | None = None,
        type: Name | None = None,  # noqa: A002 - the server's word for it
    ) -> AsyncIterator[bytes]:
        """Iterate over keys without stopping the server. See Client.scan_iter()."""
        prefix, everything = self._prefix, self._everything
        if prefix:
            match = escape_glob(prefix) + to_bytes(b"*" if match is None else match)
        before = await self._whereabouts()
        while True:
            cursor = -1
            while cursor:
                cursor, keys = await everything.scan(max(cursor, 0), match=match, count=count, type=type)
                for key in keys:
                    yield key[len(prefix) :]
            after = await self._whereabouts()
            if not has_moved(before, after):
                return
            before = after

    async def _whereabouts(self) -> SlotMap | None:
        """Which server has which keys now; None if there is only one."""
        return None

    # ---- lifetime ------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Make sure that the server can be reached.

        Raises:
            CannotConnectError, AuthError, ClientClosedError: as any command.
        """
        await self._pool.connected()

    def close(self) -> None:
        """Close all connections. Calls under way raise ConnectionLostError, later ones ClientClosedError."""
        self._pool.close()

    def __await__(self) -> Generator[object, None, Self]:
        return self._connected().__await__()

    async def _connected(self) -> Self:
        try:
            await self.check()
        except BaseException:
            self.close()
            raise
        return self

    async def __aenter__(self) -> Self:
        return await self._connected()

    async def __aexit__(self, *_: object) -> None:
        self.close()
