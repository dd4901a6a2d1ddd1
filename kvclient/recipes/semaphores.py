"""A semaphore that programs on several machines share: so many may hold it at once.

Each place is a key that holds its holder's token and ends by itself, as a lock's does. Who wants a place looks which
are free and takes one of them, chosen by chance, with SET NX: so there are never more holders than places.
There is no queue: who has waited longest is not served first.

Not here: the classes that programs use, which only differ in how they wait.
"""

from __future__ import annotations

import random
import secrets
from typing import TYPE_CHECKING

from kvclient.errors import LockLostError, LockTimeoutError, ProtocolError
from kvclient.recipes.locks import FIRST_PAUSE, LONGEST_PAUSE
from kvclient.recipes.steps import Ask, Pause
from kvclient.recipes.tokens import delete_if_owned, extend_if_owned

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.recipes.steps import Recipe


class SemaphoreRecipes:
    """How a place is taken, kept and given back.

    Args:
        name: what the keys of the places begin with; a colon and the place's number follow.
        limit: how many places there are.
        ttl: seconds after which a place is free again unless it is extended.
        now: monotonic seconds.

    Attributes:
        place: the holder's, from 0; None while it holds none.
    """

    def __init__(self, name: str, limit: int, ttl: float, now: Callable[[], float]) -> None:
        if ttl <= 0 or limit < 1:
            raise ValueError("a semaphore's ttl must be positive, and its limit at least 1")
        self.name = name
        self.limit = limit
        self.ttl = ttl
        self.place: int | None = None
        self._now = now
        self._token = b""

    def acquire(self, wait: float) -> Recipe[None]:
        """Take a place, within so many seconds.

        Raises:
            LockTimeoutError: others held all of them all the time.
        """
        deadline = self._now() + wait
        pause = FIRST_PAUSE
        while True:
            token = secrets.token_hex(16).encode()
            found = yield Ask((b"MGET", *map(self._key, range(self.limit))))
            if not isinstance(found, list):
                raise ProtocolError("the server answered MGET with something else")
            free = [place for place, holder in enumerate(found) if holder is None]
            if free:
                place = random.choice(free)  # noqa: S311 - so that those who look at once do not take the same
                command = (b"SET", self._key(place), token, b"NX", b"PX", self._milliseconds)
                if (yield Ask(command)) is not None:
                    self._token, self.place = token, place
                    return
            left = deadline - self._now()
            if left <= 0:
                raise LockTimeoutError(
                    f"others held all {self.limit} places of {self.name!r} for all of {wait} seconds"
                )
            if not free:
                yield Pause(min(left, pause * random.uniform(0.5, 1)))  # noqa: S311
                pause = min(2 * pause, LONGEST_PAUSE)

    def extend(self) -> Recipe[None]:
        """Have the place end a whole ttl from now.

        Raises:
            LockLostError: it has ended, and perhaps somebody else has it.
        """
        if self.place is None:
            raise LockLostError(f"no place of {self.name!r} is held")
        self._expect((yield from extend_if_owned(self._key(self.place), self._token, self._milliseconds)))

    def release(self) -> Recipe[None]:
        """Give the place back.

        Raises:
            LockLostError: it had ended before, and perhaps somebody else has it.
        """
        if self.place is None:
            raise LockLostError(f"no place of {self.name!r} is held")
        key, self.place = self._key(self.place), None
        self._expect((yield from delete_if_owned(key, self._token)))

    def _key(self, place: int) -> str:
        return f"{self.name}:{place}"

    @property
    def _milliseconds(self) -> int:
        return max(1, int(self.ttl * 1000))

    def _expect(self, owned: bool) -> None:
        if not owned:
            self.place = None
            raise LockLostError(f"a place of {self.name!r} ended before its holder was done: give it a longer ttl")
