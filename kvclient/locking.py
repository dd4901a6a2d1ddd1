"""The lock and the semaphore as threads use them: a with block, and a thread that keeps what is held meanwhile.

Not here: what is asked of the server (recipes/locks.py, recipes/semaphores.py).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from kvclient.errors import ClientClosedError, KVError, LockLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.recipes.locks import LockRecipes
    from kvclient.recipes.semaphores import SemaphoreRecipes
    from kvclient.recipes.steps import Recipe


class Held:
    """What is held for a with block, and ends by itself. It belongs to one thread.

    Attributes:
        lost: whether it was found to have ended while it was held; release() then raises, as does the with block.
    """

    def __init__(
        self,
        follow: Callable[[Recipe[None]], None],
        recipes: LockRecipes | SemaphoreRecipes,
        wait: float,
        *,
        extend: bool,
    ) -> None:
        self._follow = follow
        self._recipes = recipes
        self._wait = wait
        self._extend = extend
        self._released = threading.Event()
        self._holder = threading.current_thread()
        self._keeper: threading.Thread | None = None
        self.lost = False

    def acquire(self) -> None:
        """Hold it.

        Raises:
            LockTimeoutError: somebody else held it all the time.
        """
        self._follow(self._recipes.acquire(self._wait))
        self.lost = False
        if self._extend:
            self._holder = threading.current_thread()
            self._released.clear()
            self._keeper = threading.Thread(target=self._keep, name=f"kvclient-keep-{self._recipes.name}")
            self._keeper.start()

    def _keep(self) -> None:
        """Extend it again and again, until it is released or lost. A server that is away for a while may come back.

        Nothing is kept for a holder that has ended without a release, and a program that ends is not held up.
        """
        while not self._released.wait(self._recipes.ttl / 3) and self._holder.is_alive():
            try:
                self._follow(self._recipes.extend())
            except (LockLostError, ClientClosedError):
                self.lost = True
                return
            except KVError:
                continue

    def release(self) -> None:
        """Let go of it.

        Raises:
            LockLostError: it had ended before, and perhaps somebody else holds it.
        """
        self._released.set()
        if self._keeper is not None:
            self._keeper.join()  # so that nobody extends what is released
            self._keeper = None
        self._follow(self._recipes.release())

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.release()
        except KVError:
            if kind is None:  # an exception of the block's own tells more
                raise


class Lock(Held):
    """A lock that programs on several machines share; Client.lock() makes one. It belongs to one thread."""

    _recipes: LockRecipes

    @property
    def fence(self) -> int | None:
        """The holder's number, larger than that of every earlier holder; None while it is not held."""
        return self._recipes.fence


class Semaphore(Held):
    """A place of several that programs on several machines share; Client.semaphore() makes one."""

    _recipes: SemaphoreRecipes

    @property
    def place(self) -> int | None:
        """The number of the place that is held, from 0; None while none is."""
        return self._recipes.place
