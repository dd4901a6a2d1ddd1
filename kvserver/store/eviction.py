"""Which key goes first when the data takes more memory than it may: the policies, and who applies them.

A policy orders the candidates of one database; it never looks at values and never removes anything itself. What it
knows of a key is a hint: a key that is gone is skipped when its turn comes, so removing a key costs a policy nothing.
All of this is guarded by the keyspace lock.

For recent use (``*-lru``) and for frequent use (``*-lfu``) the order is that of S3-FIFO (Yang and others, "FIFO queues
are all you need for cache eviction", SOSP 2023): new keys wait in a small queue, and only those that are used again
while they wait, or that come back soon after, enter the main one. So a scan over many keys, each used once, does not
push out what is used all the time, which it does where the least recently used key goes first. The two differ in how
many uses count: few forget quickly, many remember.
"""

from __future__ import annotations

import heapq
import random
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from sys import getsizeof
from typing import TYPE_CHECKING, Protocol

from kvserver.store.outcomes import PREFIX

if TYPE_CHECKING:
    from kvserver.store.memory import Database, Keyspace

_SMALL_PART = 10
"""One key in so many waits in the small queue."""
_CHANCES = 512
"""How many used keys are passed over for one victim; the next goes, used or not. It bounds how long a command waits."""
_SLACK = 1024
"""How many keys that are gone a policy may hold beyond one for each that is there."""
_BATCH = 256
"""Keys evicted at a time while the lock is held: about half a millisecond."""


class Policy(Protocol):
    """The order in which the keys of a database go. ``live`` has the candidates: all keys, or those with a deadline."""

    live: Mapping[bytes, object]

    def add(self, key: bytes) -> None:
        """A key has become a candidate, or its deadline has changed."""

    def touch(self, key: bytes) -> None:
        """A key was used."""

    def victim(self) -> bytes | None:
        """Take out the key that goes next; None if there is no candidate."""

    def uses(self, key: bytes) -> int:
        """How much a key has been used lately, as far as this policy counts."""

    def footprint(self) -> int:
        """Bytes that the policy itself takes up: a fixed amount for each key, so that it never jumps."""


class S3Fifo:
    """Least used first, by two queues and a memory of what went lately.

    Args:
        live: the candidates.
        most: how many uses of a key count.
    """

    def __init__(self, live: Mapping[bytes, object], most: int) -> None:
        self.live = live
        self._most = most
        self._uses: dict[bytes, int] = {}  # of the keys in the queues; each is in one of them, once
        self._small: deque[bytes] = deque()
        self._main: deque[bytes] = deque()
        self._gone = array("I", bytes(4 * _SLACK))  # hashes of keys that left the small queue unused, by their low bits
        for key in live:
            self.add(key)

    def add(self, key: bytes) -> None:
        """Queue the key, where it belongs by its past."""
        if key in self._uses:
            return
        mark = hash(key) & 0xFFFFFFFF
        place = mark & (len(self._gone) - 1)
        if self._gone[place] == mark:
            self._gone[place] = 0
            self._main.append(key)
        else:
            self._small.append(key)
        self._uses[key] = 0
        if len(self._uses) > 2 * len(self.live) + _SLACK or getsizeof(self._uses) > 80 * (len(self._uses) + _SLACK):
            self._compact()

    def touch(self, key: bytes) -> None:
        """Count a use."""
        uses = self._uses.get(key)
        if uses is not None and uses < self._most:
            self._uses[key] = uses + 1

    def victim(self) -> bytes | None:
        """The first in its queue that has not been used since it came to the front."""
        uses, small, main = self._uses, self._small, self._main
        chances = _CHANCES
        while small or main:
            is_new = bool(small) and (not main or len(small) * _SMALL_PART >= len(uses))
            key = (small if is_new else main).popleft()
            if key not in self.live:
                del uses[key]
            elif uses[key] and chances:
                uses[key] = 0 if is_new else uses[key] - 1
                main.append(key)
                chances -= 1
            else:
                del uses[key]
                if is_new:
                    self._remember(key)
                return key
        return None

    def _remember(self, key: bytes) -> None:
        gone = self._gone
        if len(gone) < len(self._uses):
            self._gone = array("I", bytes(8 * len(gone)))
            for mark in gone:
                self._gone[mark & (len(self._gone) - 1)] = mark
        mark = hash(key) & 0xFFFFFFFF
        self._gone[mark & (len(self._gone) - 1)] = mark

    def _compact(self) -> None:
        self._small = deque(key for key in self._small if key in self.live)
        self._main = deque(key for key in self._main if key in self.live)
        self._uses = {key: self._uses[key] for queue in (self._small, self._main) for key in queue}

    def uses(self, key: bytes) -> int:
        """How many uses count for the key now; they fade as others are evicted."""
        return self._uses.get(key, 0)

    def footprint(self) -> int:
        """Bytes: places in the table of uses, in a queue, and in the memory of those gone."""
        return 64 * len(self._uses)


class Random:
    """Any key, each as likely as any other."""

    def __init__(self, live: Mapping[bytes, object]) -> None:
        self.live = live
        self._keys = list(live)
        self._known = set(live)

    def add(self, key: bytes) -> None:
        """Put the key with the others."""
        if key not in self._known:
            self._known.add(key)
            self._keys.append(key)
            if len(self._keys) > 2 * len(self.live) + _SLACK:
                self._keys = [key for key in self._keys if key in self.live]
                self._known = set(self._keys)

    def touch(self, key: bytes) -> None:
        """Uses do not count."""

    def victim(self) -> bytes | None:
        """Draw one."""
        keys = self._keys
        while keys:
            place = random.randrange(len(keys))  # noqa: S311
            keys[place], keys[-1] = keys[-1], keys[place]
            key = keys.pop()
            self._known.discard(key)
            if key in self.live:
                return key
        return None

    def uses(self, _key: bytes) -> int:
        """They are not counted."""
        return 0

    def footprint(self) -> int:
        """Bytes: a place in the list, and one in the set."""
        return 48 * len(self._keys)


class NearestDeadline:
    """The key that would expire first. ``live`` maps keys to deadlines."""

    def __init__(self, live: Mapping[bytes, object]) -> None:
        self.live = live
        self._heap: list[tuple[object, bytes]] = []
        self._begin()

    def _begin(self) -> None:
        self._heap = [(deadline, key) for key, deadline in self.live.items()]
        heapq.heapify(self._heap)

    def add(self, key: bytes) -> None:
        """Note the key's deadline; an earlier note is left behind."""
        heapq.heappush(self._heap, (self.live[key], key))
        if len(self._heap) > 2 * len(self.live) + _SLACK:
            self._begin()

    def touch(self, key: bytes) -> None:
        """Uses do not count."""

    def victim(self) -> bytes | None:
        """The key with the earliest deadline."""
        while self._heap:
            deadline, key = heapq.heappop(self._heap)
            if self.live.get(key) == deadline:
                return key
        return None

    def uses(self, _key: bytes) -> int:
        """They are not counted."""
        return 0

    def footprint(self) -> int:
        """Bytes: a place in the heap, and a pair."""
        return 80 * len(self._heap)


_ORDERS: dict[str, Callable[[Mapping[bytes, object]], Policy]] = {
    "lru": lambda live: S3Fifo(live, 3),
    "lfu": lambda live: S3Fifo(live, 15),
    "random": Random,
    "ttl": NearestDeadline,
}


class Eviction:
    """What a keyspace may take up, and the removal of keys when it takes more. Lock held, for every method.

    Args:
        keyspace: whose keys.
    """

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self.limit = 0  # bytes; 0 for any number
        self.policy = "noeviction"
        self.evicted = 0  # keys, so far

    def configure(self, limit: int, policy: str) -> None:
        """Set the limit in bytes and the policy; what is over the limit goes by :meth:`make_room`."""
        before = self.is_at_work, self.policy
        self.limit, self.policy = limit, policy
        if (self.is_at_work, self.policy) != before:
            for database in self._keyspace.databases:
                database.set_policy(self.policy_for(database))
        self._keyspace.mind()

    @property
    def is_at_work(self) -> bool:
        """Whether anything is to be observed: for a limit, or because OBJECT FREQ may ask."""
        return self.policy != "noeviction" and (self.limit > 0 or self.counts_uses)

    @property
    def counts_uses(self) -> bool:
        """Whether frequency decides."""
        return self.policy.endswith("lfu")

    def policy_for(self, database: Database) -> Policy | None:
        """A policy that knows what is in a database now; None when nothing is ever evicted."""
        if not self.is_at_work:
            return None
        candidates, _, order = self.policy.partition("-")
        live: Mapping[bytes, object] = database.values if candidates == "allkeys" else database.deadlines
        return _ORDERS[order](live)

    @property
    def is_over(self) -> bool:
        """Whether the data takes more than it may."""
        return 0 < self.limit < self._keyspace.used

    def settle(self) -> None:
        """Evict what is over the limit, as far as that is done at once."""
        if self.is_over:
            self.make_room()

    def is_full(self) -> bool:
        """Whether the data takes more than it may, and nothing can be evicted."""
        return self.is_over and not self.make_room()

    def make_room(self) -> bool:
        """Evict up to 256 keys, or until the data fits; False if it does not, and there is nothing to evict."""
        keyspace = self._keyspace
        crowd = [database for database in keyspace.databases if database.data_bytes or database.policy_bytes]
        for _ in range(_BATCH):
            if not self.is_over:
                return True
            database = _one_of(crowd)
            if database is None:
                return False
            key = database.policy.victim() if database.policy is not None else None
            if key is None:
                crowd.remove(database)
                database.weigh_policy()
            elif not key.startswith(PREFIX):  # an outcome stays until it ends; its turn does not come again
                database.evict(key)
                self.evicted += 1
        keyspace.expiry.wake.set()  # its thread goes on with the rest
        return True


def _one_of(crowd: list[Database]) -> Database | None:
    """A database, the likelier the more keys it has."""
    if len(crowd) < 2:
        return crowd[0] if crowd else None
    return random.choices(crowd, [len(database.values) + 1 for database in crowd])[0]  # noqa: S311
