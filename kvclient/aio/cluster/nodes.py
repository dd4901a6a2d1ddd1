"""The nodes of a cluster for asyncio: the connections to each, and who asks them who has which slot.

Not here: what follows an error (cluster/redirects.py, two folders up), and which node a command goes to (router.py).

One task at a time asks for the slots, and others who want to know await its answer. If it is cancelled, the next asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, TypeVar

from kvclient.aio.pool import AsyncPool
from kvclient.cluster.atlas import GONE, NO_ANSWER, PATIENCE, WHO_HAS_WHAT, Atlas, info_name, what_is
from kvclient.errors import CannotConnectError, ClientClosedError, KVError, ServerError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Iterable, Iterator

    from kvclient.aio.connection import AsyncConnection
    from kvclient.cluster.atlas import Info, Question
    from kvclient.cluster.slots import Address, SlotMap
    from kvclient.commands.base import Args
    from kvclient.observer import Observer
    from kvclient.protocol import Reply
    from kvclient.url import Options

T = TypeVar("T")


def now() -> float:
    """The event loop's time, in which all deadlines of this package are."""
    return asyncio.get_running_loop().time()


class _News:
    """What one task is finding out, and others await.

    Attributes:
        over: set once it has been, or has been given up.
        told: whether it was: the nodes were asked, with or without success.
        error: why there is none.
    """

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.told = False
        self.error: KVError | None = None


class AsyncNodes(Atlas):
    """All nodes of one cluster, each with its connections. It belongs to the event loop that first uses it.

    Its arguments are those of kvclient.cluster.nodes.Nodes.
    """

    def __init__(self, options: Options, tls: ssl.SSLContext | None, observer: Observer | None) -> None:
        super().__init__(options)
        self._tls, self._observer = tls, observer
        self._pools: dict[Address, AsyncPool] = {}
        self._every: weakref.WeakSet[AsyncPool] = weakref.WeakSet()  # those that are retired, too
        self._news: _News | None = None
        self._closed = False

    # ---- connections -----------------------------------------------------------------------------------------

    def pool(self, address: Address) -> AsyncPool:
        """The connections to one node.

        Raises:
            ClientClosedError: the client is closed.
        """
        if self._closed:
            raise ClientClosedError("this client is closed")
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = AsyncPool(self._options.at(*address), self._tls, self._observer)
            self._every.add(pool)
        return pool

    async def connection(self, address: Address, deadline: float) -> AsyncConnection:
        """The connection to a node that all tasks share, once it can take a command.

        Raises:
            CannotConnectError, AuthError, ClientClosedError: there is none.
            CallTimeoutError: the node takes nothing. Nothing was sent.
        """
        pool = self.pool(address)
        connection = pool.shared
        if connection is not None and connection.ready:
            return connection
        return await self.in_time(pool.ready(deadline - now()), address, deadline)

    async def in_time(self, opening: Awaitable[T], address: Address, deadline: float) -> T:
        """What comes of opening a connection, if it does by a deadline.

        Raises:
            CannotConnectError: it did not.
            ClientClosedError: the client is closed.
        """
        try:
            with self.membership():
                async with asyncio.timeout_at(deadline):
                    return await opening
        except TimeoutError as error:
            if isinstance(error, KVError):
                raise
            raise CannotConnectError(f"cannot connect to {address}: it did not answer in time") from None

    @contextlib.contextmanager
    def membership(self) -> Iterator[None]:
        """For what is done with the connections to one node, which may turn out to be no part of the cluster any more.

        Raises:
            CannotConnectError: it did.
        """
        try:
            yield
        except ClientClosedError:
            if self._closed:
                raise
            raise CannotConnectError(GONE) from None

    def close(self) -> None:
        """Close all connections. Calls under way raise."""
        self._closed = True
        for pool in self._every:
            pool.close()

    # ---- who has what ----------------------------------------------------------------------------------------

    async def owner(self, slot: int, deadline: float) -> Address:
        """The node that has a slot, as far as is known; any, if nobody has.

        Raises:
            CannotConnectError: no node says who has which.
        """
        await self.know(deadline)
        return self.known_owner(slot)

    async def know(self, deadline: float) -> None:
        """Ask who has which slot, if that is not known at all."""
        if not self.slots.primaries:
            await self.refresh(self.slots, deadline)

    async def look_again(
        self, seen: SlotMap, deadline: float, *, first: Address | None = None, last: Address | None = None
    ) -> None:
        """Ask who has what now; if nobody says, go on with what was known, and find out at the next attempt."""
        try:
            await self.refresh(seen, deadline, first=first, last=last)
        except CannotConnectError:
            if not self.slots.primaries:
                raise

    async def refresh(
        self, seen: SlotMap, deadline: float, *, first: Address | None = None, last: Address | None = None
    ) -> None:
        """Ask the nodes who has which slot, unless there is a newer map than `seen` already.

        The arguments, and what is raised, are as for kvclient.cluster.nodes.Nodes.refresh().
        """
        while self.slots is seen:
            news = self._news
            if news is None:
                await self._find_out(self.candidates(first, last), deadline)
                return
            try:
                async with asyncio.timeout_at(deadline):
                    await news.over.wait()
            except TimeoutError:
                return  # who wanted to know finds that there is no time left
            if news.error is not None:
                raise news.error
            if news.told:
                return

    async def _find_out(self, candidates: Iterable[Address], deadline: float) -> None:
        """Ask, for all who want to know."""
        news = self._news = _News()
        try:
            self.learn(await self._asked(candidates, WHO_HAS_WHAT, deadline))
            news.told = True
        except KVError as error:
            news.error = error
            raise
        finally:
            self._news = None
            news.over.set()
        for address in self._pools.keys() - self.members():
            self._pools.pop(address).retire()

    async def _asked(self, candidates: Iterable[Address], question: Question[T], deadline: float) -> T:
        """What the first node tells that answers."""
        error: KVError | None = None
        for address in candidates:
            limit = min(deadline, now() + PATIENCE)
            try:
                return question.told(await self._ask(address, question.payload, limit), address)
            except NO_ANSWER as failure:
                error = failure
            if now() >= deadline:
                break
        raise self.nobody_says(question.what, error)

    async def _ask(self, address: Address, payload: bytes, deadline: float) -> Reply:
        connection = await self.connection(address, deadline)
        (reply,) = await connection.send(payload, 1, deadline, final=False)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    # ---- commands --------------------------------------------------------------------------------------------

    async def info(self, words: Args, deadline: float) -> Info:
        """What the servers say of a command; they are asked once for each name.

        Raises:
            KVError: they cannot be asked.
        """
        name = info_name(words)
        info = self.infos.get(name)
        if info is None:
            await self.know(deadline)
            info = await self._asked(self.candidates(), what_is(name), deadline)
        return self.noted(words, name, info)
