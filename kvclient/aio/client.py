"""The async client: commands that are awaited.

Not here: which commands there are (commands/), how a socket is used (connection.py), which one (pool.py).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal, Self, TypeVar, overload

from kvclient.aio.listening import AsyncSubscription, named
from kvclient.aio.locking import AsyncLock
from kvclient.aio.pipeline import AsyncPipeline
from kvclient.aio.pool import AsyncPool
from kvclient.aio.transaction import AsyncTransaction, watching
from kvclient.client import tls_context
from kvclient.commands import Commands, refuse_connection_commands, to
from kvclient.commands.base import Awaited
from kvclient.errors import ConnectionLostError, ServerError
from kvclient.protocol import encode_command
from kvclient.recipes.caching import get_or_set
from kvclient.recipes.limits import use
from kvclient.recipes.locks import LockRecipes
from kvclient.recipes.steps import Ask, Call, Pause, Together, run_async
from kvclient.url import DEFAULT_URL, Options, parse_url

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable

    from kvclient.aio.connection import AsyncConnection
    from kvclient.aio.transaction import AsyncWatchingTransaction
    from kvclient.commands.base import Args, Command, P, S
    from kvclient.protocol import Key, Reply, Value
    from kvclient.recipes.limits import RateLimit
    from kvclient.recipes.steps import Recipe, Step

T = TypeVar("T")


def connect(
    url: str = DEFAULT_URL,
    *,
    timeout: float | None = None,
    max_connections: int | None = None,
    name: str | None = None,
    username: str | None = None,
    password: str | None = None,
    db: int | None = None,
    protocol: Literal[2, 3] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncClient:
    """A client of kvserver, Redis or Valkey, for one event loop. Await it, or enter it, to be connected.

        kv = await kvclient.aio.connect(url)        # close it with kv.close()
        async with kvclient.aio.connect(url) as kv: ...

    The arguments are those of kvclient.connect(); max_connections bounds the connections that transactions which
    watch, and commands that block, have for themselves.

    Raises:
        BadURLError: the URL or an option makes no sense. When awaited: as kvclient.connect().
    """
    options = parse_url(
        url, timeout=timeout, max_connections=max_connections, name=name, username=username,
        password=password, db=db, protocol=protocol, tls=True if tls is not None else None,
    )  # fmt: skip
    return AsyncClient(options, tls)


class AsyncClient(Commands, Awaited):
    """A server, as an object whose methods are its commands, each to be awaited. The tasks of one event loop share it.

    Commands of different tasks go over one connection, together where they come together. A task that is cancelled
    disturbs no other.
    """

    def __init__(self, options: Options, tls: ssl.SSLContext | None = None) -> None:
        self.options = options
        self._timeout = options.timeout
        self._tls = tls if tls is not None or not options.tls else tls_context(options)
        self._pool = AsyncPool(options, self._tls)

    def __repr__(self) -> str:
        return f"<kvclient.aio.AsyncClient {self.options.address} db={self.options.db}>"

    @classmethod
    def _bind(cls, command: Command[S, P, T]) -> Callable[..., Coroutine[object, object, T]]:
        build, convert, safe, patience = command.build, command.convert, command.safe, command.patience
        if patience is None:

            async def method(self: AsyncClient, *args: object, **kwargs: object) -> T:
                return convert(await self._run(build(self, *args, **kwargs), safe, self._timeout))  # type: ignore[arg-type]
        else:

            async def method(self: AsyncClient, *args: object, **kwargs: object) -> T:
                words = build(self, *args, **kwargs)  # type: ignore[arg-type]
                return convert(await self._run_apart(words, self._timeout + patience(words)))

        return method

    # ---- running commands ----------------------------------------------------------------------------------

    async def execute(self, *args: Value, timeout: float | None = None) -> Reply:
        """Run any command, given word by word, and return the server's reply. See Client.execute().

        Raises:
            ServerError, CommandRefusedError, KVError: as there.
        """
        refuse_connection_commands(args)
        return to.anything(await self._run(args, False, self._timeout if timeout is None else timeout))

    async def _run(self, args: Args, safe: bool, timeout: float) -> Reply:
        """Send one command; once more if the connection broke and that cannot harm."""
        payload = encode_command(args)
        connection = self._pool.shared
        try:
            if connection is None or not connection.ready:
                connection = await self._ready(timeout)
            reply = (await connection.send(payload, 1, connection.now() + timeout))[0]
        except ConnectionLostError as error:
            if not safe and error.applied != "no":
                raise
            connection = await self._ready(timeout)
            reply = (await connection.send(payload, 1, connection.now() + timeout))[0]
        if isinstance(reply, ServerError):
            raise reply
        return reply

    async def _ready(self, timeout: float) -> AsyncConnection:
        """The shared connection, once it can take a command."""
        connection = await self._pool.connected()
        await connection.drain(connection.now() + timeout)
        return connection

    async def _run_apart(self, args: Args, timeout: float) -> Reply:
        """Send a command that the server may take its time for, where nobody waits behind it."""
        async with self._pool.borrowed(timeout) as connection:
            (reply,) = await connection.send(encode_command(args), 1, connection.now() + timeout)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    def pipeline(self, *, raise_errors: bool = True, timeout: float | None = None) -> AsyncPipeline:
        """Collect commands in an async with block and send them together at its end. See Client.pipeline()."""
        seconds = self._timeout if timeout is None else timeout
        return AsyncPipeline(self._pool.connected, seconds, raise_errors=raise_errors)

    @overload
    def transaction(self, *, timeout: float | None = None) -> AsyncTransaction: ...
    @overload
    def transaction(
        self,
        work: Callable[[AsyncWatchingTransaction], Awaitable[T]],
        *,
        watch: Iterable[Key],
        timeout: float | None = None,
    ) -> Coroutine[object, object, T]: ...
    def transaction(
        self,
        work: Callable[[AsyncWatchingTransaction], Awaitable[T]] | None = None,
        *,
        watch: Iterable[Key] = (),
        timeout: float | None = None,
    ) -> AsyncTransaction | Coroutine[object, object, T]:
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
        seconds = self._timeout if timeout is None else timeout
        if work is None:
            return AsyncTransaction(self._pool.connected, seconds, raise_errors=True)
        return watching(self._pool, work, watch, seconds)

    # ---- what is built on commands -------------------------------------------------------------------------

    def lock(self, name: str, *, ttl: float = 30, wait: float = 10, extend: bool = True) -> AsyncLock:
        """A lock that all programs share which use the same name; for an async with block. See Client.lock().

        A task that is cancelled while it acquires may leave the lock held, until it ends by itself.
        """
        return AsyncLock(self._follow, LockRecipes(name, ttl, time.monotonic), wait, extend=extend)

    async def rate_limit(self, key: Key, limit: int, *, per: float) -> RateLimit:
        """Count one use of a key, of which `limit` are allowed within `per` seconds. See Client.rate_limit()."""
        return await self._follow(use(key, limit, per))

    async def get_or_set(
        self, key: str, compute: Callable[[], Awaitable[bytes]], *, ttl: float, stale: float = 0, lease: float = 10
    ) -> bytes:
        """The value of a key; if there is none, await compute() and store it. See Client.get_or_set().

        Raises:
            CallTimeoutError: others were computing all the time, twice the lease, and no value came.
        """
        return await self._follow(get_or_set(key, ttl, stale, lease, time.monotonic), compute)

    async def _follow(self, recipe: Recipe[T], compute: Callable[[], Awaitable[bytes]] | None = None) -> T:
        async def take(step: Step) -> Reply:
            match step:
                case Ask(args):
                    return await self.execute(*args)
                case Together(commands):
                    async with self.transaction() as transaction:
                        futures = [transaction.execute(*args) for args in commands]
                    return [future.result() for future in futures]
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                    return None
                case Call():
                    assert compute is not None
                    return await compute()

        return await run_async(recipe, take)

    def listen(self, *channels: Key, patterns: Iterable[Key] = (), shards: Iterable[Key] = ()) -> AsyncSubscription:
        """Listen to channels, to glob patterns of channels, to shard channels; on a connection of its own.

            async with client.listen("news") as messages:
                async for message in messages:
                    ...

        Server commands: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE.
        """
        return AsyncSubscription(self.options, self._tls, named(b"SUBSCRIBE", channels, patterns, shards))

    async def scan_iter(
        self,
        *,
        match: Key | None = None,
        count: int | None = None,
        type: Key | None = None,  # noqa: A002 - the server's word for it
    ) -> AsyncIterator[bytes]:
        """Iterate over keys without stopping the server. See Client.scan_iter()."""
        cursor = -1
        while cursor:
            cursor, keys = await self.scan(max(cursor, 0), match=match, count=count, type=type)
            for key in keys:
                yield key

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
