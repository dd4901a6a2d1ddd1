"""A lock that programs on several machines share, with a number that tells later holders from earlier ones.

The key holds a token that only the holder knows, and ends by itself. Acquiring is one transaction: SET NX, and INCR of
a counter beside it. So the numbers of holders grow in the order in which they held the lock (the counter also grows
when somebody fails, which does no harm). A store that refuses a number lower than one it has seen is safe even from a
holder that was asleep while its lock ended: https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html

Not here: the classes that programs use, which only differ in how they wait (client.py, aio/client.py).
"""

from __future__ import annotations

import random
import secrets
from typing import TYPE_CHECKING, Final

from kvclient.cluster.slots import beside
from kvclient.errors import LockLostError, LockTimeoutError
from kvclient.recipes.steps import Pause, Together
from kvclient.recipes.tokens import delete_if_owned, extend_if_owned

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.recipes.steps import Recipe

FIRST_PAUSE: Final = 0.005  # seconds; then twice as long each time, and by chance between half of it and all
LONGEST_PAUSE: Final = 0.25


class LockRecipes:
    """How a lock is acquired, kept and released.

    Args:
        name: the key; the counter's key begins with it, and with ":fence".
        ttl: seconds after which it ends unless it is extended.
        now: monotonic seconds.

    Attributes:
        fence: the holder's number; None while it is not held.
    """

    def __init__(self, name: str, ttl: float, now: Callable[[], float]) -> None:
        if ttl <= 0:
            raise ValueError(f"a lock's ttl must be positive, not {ttl}")
        self.name = name
        self.ttl = ttl
        self.fence: int | None = None
        self._now = now
        self._token = b""
        self._counter = beside(name.encode(), "fence")

    def acquire(self, wait: float) -> Recipe[None]:
        """Hold the lock, within so many seconds.

        Raises:
            LockTimeoutError: others held it all the time.
        """
        deadline = self._now() + wait
        pause = FIRST_PAUSE
        while True:
            token = secrets.token_hex(16).encode()
            reply = yield Together(
                (
                    (b"SET", self.name, token, b"NX", b"PX", self._milliseconds),
                    (b"INCR", self._counter),
                )
            )
            if isinstance(reply, list) and reply[0] is not None and isinstance(reply[1], int):
                self._token, self.fence = token, reply[1]
                return
            left = deadline - self._now()
            if left <= 0:
                raise LockTimeoutError(f"somebody else held the lock {self.name!r} for all of {wait} seconds")
            yield Pause(min(left, pause * random.uniform(0.5, 1)))  # noqa: S311 - so that waiters do not come at once
            pause = min(2 * pause, LONGEST_PAUSE)

    def extend(self) -> Recipe[None]:
        """Have it end a whole ttl from now.

        Raises:
            LockLostError: it has ended, and perhaps somebody else holds it.
        """
        self._expect((yield from extend_if_owned(self.name, self._token, self._milliseconds)))

    def release(self) -> Recipe[None]:
        """Let go of it.

        Raises:
            LockLostError: it had ended before, and perhaps somebody else holds it.
        """
        token, self._token, self.fence = self._token, b"", None
        self._expect((yield from delete_if_owned(self.name, token)))

    @property
    def _milliseconds(self) -> int:
        return max(1, int(self.ttl * 1000))

    def _expect(self, owned: bool) -> None:
        if not owned:
            self._token, self.fence = b"", None
            raise LockLostError(f"the lock {self.name!r} ended before its holder was done: give it a longer ttl")
