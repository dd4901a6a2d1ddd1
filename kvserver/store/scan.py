"""Walking a database while it changes: the order, the cursor and the snapshot behind SCAN.

Keys are walked in the order of their hash, and the cursor is the place in that order where the walk goes on. So a
cursor is good whatever happens meanwhile, needs no state kept for it, and a key that is there during the whole walk
is met exactly once. Any snapshot taken after a walk began holds every such key; hence one snapshot a database, the
newest, serves all walks at once, and if it has been dropped the next call makes another.
"""

from __future__ import annotations

from collections.abc import Container

_BITS = 48
"""Hash bits that order the walk; a cursor then fits a double, which some clients keep it in."""
_MASK = (1 << _BITS) - 1
_KEYS_PER_BUCKET = 8


def _place(key: bytes) -> int:
    # hash() of bytes is seeded per process, so a client cannot choose keys that fall together.
    return hash(key) & _MASK


def still_live(keys: list[bytes], deadlines: dict[bytes, int], now: int) -> list[bytes]:
    """Those of the keys that have no deadline up to ``now``."""
    return [key for key in keys if deadlines.get(key, now + 1) > now] if deadlines else keys


def present(keys: list[bytes], values: Container[bytes], deadlines: dict[bytes, int], now: int) -> list[bytes]:
    """Those of the keys that are among the values, and have no deadline up to ``now``."""
    return [key for key in keys if key in values and deadlines.get(key, now + 1) > now]


class Snapshot:
    """The keys of one moment, in buckets by the leading bits of their place. Never changes once built."""

    __slots__ = ("_buckets", "_shift")

    def __init__(self, keys: list[bytes]) -> None:
        bits = max(0, (len(keys) // _KEYS_PER_BUCKET).bit_length())
        self._shift = _BITS - bits
        self._buckets: list[list[bytes]] = [[] for _ in range(1 << bits)]
        buckets, shift = self._buckets, self._shift
        for key in keys:
            buckets[(hash(key) & _MASK) >> shift].append(key)

    def walk(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """At least ``count`` keys from ``cursor`` on, if there are so many, and the next cursor (0 at the end)."""
        if cursor > _MASK:
            return 0, []
        index = cursor >> self._shift
        # A snapshot with fewer, wider buckets may have been made since: the cursor then points into one.
        keys = [key for key in self._buckets[index] if _place(key) >= cursor]
        index += 1
        while index < len(self._buckets) and (len(keys) < count or not self._buckets[index]):
            keys += self._buckets[index]
            index += 1
        return (0 if index == len(self._buckets) else index << self._shift), keys
