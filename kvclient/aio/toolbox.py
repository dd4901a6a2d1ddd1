"""What programs build on a store, as methods of the async client. See toolbox.py one folder up.

Not here: how each works (recipes/ and the modules it is imported from), and running commands (client.py). There is no
mapping, since the mapping protocol cannot be awaited.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast, overload

from kvclient.aio.files import AsyncValueReader, AsyncValueWriter
from kvclient.aio.locking import AsyncLock, AsyncSemaphore
from kvclient.aio.nearcache import AsyncNearCache
from kvclient.caching import AsyncCachedFunction, Lifetimes, async_cached
from kvclient.commands import Commands
from kvclient.commands.base import Awaited, prefixed
from kvclient.files import CHUNK, check_mode
from kvclient.protocol import to_bytes
from kvclient.recipes.limits import use
from kvclient.recipes.locks import LockRecipes
from kvclient.recipes.semaphores import SemaphoreRecipes
from kvclient.recipes.steps import Ask, Call, Pause, Together, run_async
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from kvclient.aio.client import AsyncClient
    from kvclient.commands.options import Ttl
    from kvclient.protocol import Key, Reply
    from kvclient.recipes.caching import Cache
    from kvclient.recipes.limits import RateLimit
    from kvclient.recipes.steps import Recipe, Step
    from kvclient.serializers import Serializer

P = ParamSpec("P")
T = TypeVar("T")
_monotonic = time.monotonic


class AsyncToolbox(Commands[In, Out], Awaited[In, Out], is_part=True):
    """The part of AsyncClient that is built on the rest of it."""

    _cache: Cache
    _tls: ssl.SSLContext | None

    @property
    def _everything(self) -> AsyncClient:
        """The client outside of all namespaces, with values as bytes."""
        raise NotImplementedError

    def lock(self, name: str, *, ttl: float = 30, wait: float = 10, extend: bool = True) -> AsyncLock:
        """A lock that all programs share which use the same name; for an async with block. See Client.lock().

        A task that is cancelled while it acquires may leave the lock held, until it ends by itself.
        """
        return AsyncLock(self._follow, LockRecipes(self._name(name), ttl, _monotonic), wait, extend=extend)

    def semaphore(
        self, name: str, limit: int, *, ttl: float = 30, wait: float = 10, extend: bool = True
    ) -> AsyncSemaphore:
        """One of `limit` places that all programs share which use the same name. See Client.semaphore()."""
        recipes = SemaphoreRecipes(self._name(name), limit, ttl, _monotonic)
        return AsyncSemaphore(self._follow, recipes, wait, extend=extend)

    def cached(
        self,
        *,
        ttl: float,
        key: str | None = None,
        stale: float = 0,
        early: float = 0,
        lease: float = 10,
        serializer: Serializer[Any, Any] | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], AsyncCachedFunction[P, T]]:
        """Keep a coroutine function's results on the server: a decorator. See Client.cached()."""
        view = cast("AsyncClient[Any, Any]", self)
        return async_cached(view, serializer, key, Lifetimes(ttl, stale, early, lease))

    def near_cache(self, *, prefixes: Iterable[Key] = (), max_keys: int = 10_000) -> AsyncNearCache[Out]:
        """A cache in this process for reads, which the server keeps right. See Client.near_cache()."""
        return AsyncNearCache(self._everything, self._tls, self._unpack, self._prefix, prefixes, max_keys)

    @overload
    def open(self, key: Key, mode: Literal["rb"] = "rb", *, chunk: int = CHUNK) -> AsyncValueReader: ...
    @overload
    def open(
        self, key: Key, mode: Literal["wb"], *, ttl: Ttl | None = None, chunk: int = CHUNK
    ) -> AsyncValueWriter: ...
    def open(
        self, key: Key, mode: Literal["rb", "wb"] = "rb", *, ttl: Ttl | None = None, chunk: int = CHUNK
    ) -> AsyncValueReader | AsyncValueWriter:
        """A value as a file, for an async with block. See Client.open().

        async with client.open("backup") as file:
            async for piece in file: ...
        """
        check_mode(mode)
        name = prefixed(self._prefix, key)
        if mode == "rb":
            return AsyncValueReader(self._everything, name, chunk)
        return AsyncValueWriter(self._everything, name, ttl, chunk)

    async def rate_limit(self, key: Key, limit: int, *, per: float) -> RateLimit:
        """Count one use of a key, of which `limit` are allowed within `per` seconds. See Client.rate_limit()."""
        return await self._follow(use(self._prefix + to_bytes(key), limit, per))

    async def get_or_set(
        self,
        key: str,
        compute: Callable[[], Awaitable[In]],
        *,
        ttl: float,
        stale: float = 0,
        early: float = 0,
        lease: float = 10,
    ) -> Out:
        """The value of a key; if there is none, await compute() and store it. See Client.get_or_set().

        Raises:
            CallTimeoutError: others were computing all the time, twice the lease, and no value came.
        """

        async def computed() -> bytes:
            return to_bytes(self._pack(await compute()))

        recipe = self._cache.get_or_set(self._name(key), ttl=ttl, stale=stale, early=early, lease=lease)
        return self._unpack(await self._follow(recipe, computed))

    def _name(self, key: str) -> str:
        """A key within the namespace, for a recipe, whose keys are the server's."""
        return self._prefix.decode() + key

    async def _follow(self, recipe: Recipe[T], compute: Callable[[], Awaitable[bytes]] | None = None) -> T:
        everything = self._everything

        async def take(step: Step) -> Reply:
            match step:
                case Ask(args):
                    return await everything.execute(*args)
                case Together(commands):
                    async with everything.transaction() as transaction:
                        futures = [transaction.execute(*args) for args in commands]
                    return [future.result() for future in futures]
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                    return None
                case Call():
                    assert compute is not None
                    return await compute()

        return await run_async(recipe, take)
