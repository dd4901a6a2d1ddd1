"""The server's time: the system's, or for tests one that can be stopped and moved. No thread, no waiting.

Deadlines are wall-clock milliseconds, so whoever moves this clock moves every time to live.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def wall_clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class MovableClock:
    """A clock that runs as another does, until somebody stops or moves it. Any thread may, at any time.

    Its state is one tuple, replaced as a whole, so whoever reads the time sees it before a change or after.

    Args:
        source: milliseconds, of the clock it follows.
    """

    def __init__(self, source: Callable[[], int] = wall_clock) -> None:
        self._source = source
        self._state: tuple[int, int | None] = (0, None)  # added to the source's time; or where it stands still

    def __call__(self) -> int:
        """The time: milliseconds since the epoch."""
        offset, still = self._state
        return self._source() + offset if still is None else still

    def copy(self) -> MovableClock:
        """Another that shows the same time and goes its own way from now on."""
        other = MovableClock(self._source)
        other._state = self._state
        return other

    @property
    def stands_still(self) -> bool:
        """Whether time does not pass by itself."""
        return self._state[1] is not None

    def freeze(self) -> None:
        """Stop time where it is."""
        self._state = 0, self()

    def resume(self) -> None:
        """Be the source's time again."""
        self._state = 0, None

    def advance(self, milliseconds: int) -> None:
        """Step forwards; with a negative number backwards. It stands still or goes on as before."""
        offset, still = self._state
        self._state = (offset + milliseconds, None) if still is None else (0, still + milliseconds)

    def set(self, moment: int) -> None:
        """Step to a moment, in milliseconds since the epoch."""
        self.advance(moment - self())
