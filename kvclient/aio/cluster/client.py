"""The async client of a cluster: the same commands as of one server, each sent to the node that has its keys.

Not here: which node that is (cluster/, two folders up), and how a command gets there (router.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from kvclient.aio.client import AsyncClient
from kvclient.aio.cluster.nearcache import AsyncClusterNearCache
from kvclient.aio.cluster.nodes import now
from kvclient.aio.cluster.pipeline import AsyncClusterPipeline, AsyncClusterTransaction, outcomes
from kvclient.aio.cluster.router import AsyncRouter
from kvclient.aio.transaction import watching
from kvclient.cluster.plan import Sent, replies_among
from kvclient.cluster.redirects import Route
from kvclient.cluster.split import listening_slot, merged, one_slot, parts_of
from kvclient.cluster.walk import Walk
from kvclient.commands import to
from kvclient.commands.base import prefixed
from kvclient.errors import KVError
from kvclient.observer import name_of
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from kvclient.aio.transaction import AsyncTransaction, Watcher
    from kvclient.cluster.slots import SlotMap
    from kvclient.commands.base import Args
    from kvclient.protocol import Key, Reply
    from kvclient.url import Options

T = TypeVar("T")


class AsyncClusterClient(AsyncClient[In, Out]):
    """A cluster, as an object whose methods are its commands, each to be awaited.

    kvclient.aio.connect() makes it of a URL valkey+cluster://... A command goes to the node that has its keys, over the
    one connection to that node that all tasks share. A node that fails, and slots that move, are found out by asking
    the others, within the call's time: what can be tried again safely is, and what may have been applied raises.
    """

    def _begin(self) -> None:
        self._router = AsyncRouter(self.options, self._tls, self._observer)

    async def check(self) -> None:
        """Make sure that the cluster can be reached. As AsyncClient.check()."""
        await self._router.refresh(self._router.slots, now() + self._timeout)

    def close(self) -> None:
        """Close all connections. Calls under way raise ConnectionLostError, later ones ClientClosedError."""
        self._router.close()

    # ---- one command -----------------------------------------------------------------------------------------

    def _submit(
        self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None
    ) -> Coroutine[object, object, T]:
        timeout, apart = self._timeout + (patience or 0), patience is not None
        call = self._dispatch(words, convert, timeout, safe=safe, again=self.options.retries > 0, apart=apart)
        return call if self._observer is None else self._observed(name_of(words), call)

    async def run(self, words: Args, convert: Callable[[Reply], T], safe: bool, timeout: float, retries: int) -> T:
        """Run one command. For the modules that are part of a client."""
        with self._told(name_of(words)):
            return await self._dispatch(words, convert, timeout, safe=safe, again=retries > 0)

    async def _dispatch(
        self,
        words: Args,
        convert: Callable[[Reply], T],
        timeout: float,
        *,
        safe: bool,
        again: bool,
        apart: bool = False,
    ) -> T:
        """Send a command to the node that has its keys, or its parts to all that have some."""
        router, deadline = self._router, now() + timeout
        info = await router.info(words, deadline)
        if info is not None and info.name == "SCAN":
            return convert(await self._page(words, deadline))
        parts = parts_of(info, words, router.slots)
        if len(parts) == 1:
            return await router.routed(parts[0], convert, deadline, safe=safe, again=again, apart=apart)
        sent = [Sent(part, safe) for part in parts]
        found = await outcomes(router, sent, deadline, again=again, apart=apart)
        return convert(merged(info, parts, replies_among(found)))

    async def _page(self, words: Args, deadline: float) -> Reply:
        walk = Walk(words, self._router.slots)
        if walk.part is None:
            return walk.page(None)
        return walk.page(await self._router.routed(walk.part, to.anything, deadline, safe=True))

    # ---- several commands ------------------------------------------------------------------------------------

    def pipeline(self, *, raise_errors: bool = True, timeout: float | None = None) -> AsyncClusterPipeline[In, Out]:
        """Collect commands in an async with block and send them together at its end, to each node its own.

        See Client.pipeline(). Commands with the same key are run in their order.
        """
        return AsyncClusterPipeline(self._router, self._manner(timeout, raise_errors=raise_errors))

    def _transaction(self, timeout: float | None) -> AsyncTransaction[In, Out]:
        return AsyncClusterTransaction(self._router, self._manner(timeout))

    async def _watching(self, work: Watcher[In, Out, T], watch: Iterable[Key], timeout: float | None) -> T:
        """As AsyncClient.transaction() with keys to watch, which have to be in one slot, and all others with them."""
        manner, keys, router = self._manner(timeout), [*watch], self._router
        slot = one_slot((prefixed(self._prefix, key) for key in keys), "WATCH") or 0
        deadline, route = now() + manner.timeout, Route(slot, safe=False, again=True)
        while True:
            address, seen = await router.owner(slot, deadline), router.slots
            try:
                with router.membership():
                    return await watching(router.pool(address), work, keys, manner)
            except KVError as error:
                step = route.after_together(error, address, deadline - now())
            await asyncio.sleep(step.pause)
            await router.look_again(seen, deadline, first=step.address, last=route.failed)

    # ---- listening and iterating -----------------------------------------------------------------------------

    def _finder(self, channels: Sequence[Key], shards: Sequence[Key]) -> Callable[[], Awaitable[Options]]:
        """Every node tells of channels, whoever published; of shard channels, the one that has the slot of them all."""
        slot, router = listening_slot(channels, shards), self._router

        async def find() -> Options:
            deadline = now() + self._timeout
            await router.look_again(router.slots, deadline)
            return self.options.at(*(router.some_primary() if slot is None else router.known_owner(slot)))

        return find

    def near_cache(self, *, prefixes: Iterable[Key] = (), max_keys: int = 10_000) -> AsyncClusterNearCache[Out]:
        """A cache in this process for reads, which all primaries keep right. See Client.near_cache()."""
        return AsyncClusterNearCache(
            self._everything, self._router, self._tls, self._unpack, self._prefix, prefixes, max_keys
        )

    async def _whereabouts(self) -> SlotMap:
        await self._router.look_again(self._router.slots, now() + self._timeout)
        return self._router.slots
