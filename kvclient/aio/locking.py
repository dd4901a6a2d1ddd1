"""The lock and the semaphore as tasks use them: an async with block, and a task that keeps what is held meanwhile.

Not here: what is asked of the server (recipes/locks.py, recipes/semaphores.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from kvclient.errors import ClientClosedError, KVError, LockLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvclient.recipes.locks import LockRecipes
    from kvclient.recipes.semaphores import SemaphoreRecipes
    from kvclient.recipes.steps import Recipe


class AsyncHeld:
    """What is held for an async with block, and ends by itself. It belongs to one task.

    Attributes:
        lost: whether it was found to have ended while it was held; release() then raises, as does the with block.
    """

    def __init__(
        self,
        follow: Callable[[Recipe[None]], Awaitable[None]],
        recipes: LockRecipes | SemaphoreRecipes,
        wait: float,
        *,
        extend: bool,
    ) -> None:
        self._follow = follow
        self._recipes = recipes
        self._wait = wait
        self._extend = extend
        self._keeper: asyncio.Task[None] | None = None
        self.lost = False

    async def acquire(self) -> None:
        """Hold it.

        Raises:
            LockTimeoutError: somebody else held it all the time.
        """
        await self._follow(self._recipes.acquire(self._wait))
        self.lost = False
        if self._extend:
            self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """Extend it again and again, until it is released or lost. A server that is away for a while may come back."""
        while True:
            await asyncio.sleep(self._recipes.ttl / 3)
            try:
                await self._follow(self._recipes.extend())
            except (LockLostError, ClientClosedError):
                self.lost = True
                return
            except KVError:
                continue

    async def release(self) -> None:
        """Let go of it.

        Raises:
            LockLostError: it had ended before, and perhaps somebody else holds it.
        """
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])  # so that nobody extends what is released
            self._keeper = None
        await self._follow(self._recipes.release())

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self.release()
        except KVError:
            if kind is None:  # an exception of the block's own tells more
                raise


class AsyncLock(AsyncHeld):
    """A lock that programs on several machines share; AsyncClient.lock() makes one. It belongs to one task."""

    _recipes: LockRecipes

    @property
    def fence(self) -> int | None:
        """The holder's number, larger than that of every earlier holder; None while it is not held."""
        return self._recipes.fence


class AsyncSemaphore(AsyncHeld):
    """A place of several that programs on several machines share; AsyncClient.semaphore() makes one."""

    _recipes: SemaphoreRecipes

    @property
    def place(self) -> int | None:
        """The number of the place that is held, from 0; None while none is."""
        return self._recipes.place
