"""How many outcomes of KV.ONCE are being kept, so that there are not too many. The keyspace lock guards it.

An outcome is a key like any other, with a lifetime, so that the journal has it in one batch with what the command did.
It is never evicted, since a command whose outcome was forgotten could be run twice. That is why there is a limit.
"""

from __future__ import annotations

import heapq

PREFIX = b"kv:once:"
"""What the key of an outcome begins with; the token follows."""


class Outcomes:
    """Counts outcomes until they end. Those from before a restart are not counted; they end too.

    Attributes:
        most: how many there may be at a time.
    """

    def __init__(self) -> None:
        self.most = 0
        self._ends: list[int] = []  # a heap of deadlines

    def has_room(self, now: int) -> bool:
        """Whether there may be one more. Times are wall-clock milliseconds."""
        ends = self._ends
        while ends and ends[0] <= now:
            heapq.heappop(ends)
        return len(ends) < self.most

    def add(self, deadline: int) -> None:
        """Count one more."""
        heapq.heappush(self._ends, deadline)
