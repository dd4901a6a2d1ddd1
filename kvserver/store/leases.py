"""Leases: who computes the value of a key that is missing or old, so that not everybody does.

A lease is void as soon as the key is set or deleted, also if there was nothing to delete: who then stores what was
computed from older data is refused (the idea is that of Nishtala and others, "Scaling Memcache at Facebook", NSDI
2013). Leases are kept in memory only: after a restart nobody holds one. The keyspace lock guards all of this.
"""

from __future__ import annotations

import hashlib
import secrets
from itertools import islice

MOST = 100_000
"""How many leases a database gives out at a time; those that have ended do not count."""


_LOOKED_AT = 100
"""Leases that are looked at to find one that has ended, when another is asked for and there are too many."""


class TooManyLeasesError(Exception):
    """There are so many that no more is given out."""


_LONGEST = 64
"""Bytes of a key that is kept as it is. Of a longer one its digest is, so that leases take no more memory than so many
short keys do, whatever is sent; that two keys have one is out of the question (BLAKE2b, 256 bits)."""


class Leases(dict[bytes, tuple[int, int]]):
    """The leases of one database: key to token and end, in wall-clock milliseconds. Lock held, for every method."""

    __slots__ = ()

    def void(self, key: bytes) -> None:
        """End the lease of a key, if there is one."""
        self.pop(_short(key), None)

    def grant(self, key: bytes, now: int, until: int) -> int | None:
        """A token for the caller, who now holds the lease of the key; None if somebody else does.

        Raises:
            TooManyLeasesError: too many are held.
        """
        key = _short(key)
        held = self.get(key)
        if held is not None and held[1] > now:
            return None
        if held is None and len(self) >= MOST:
            self._forget_some(now)
            if len(self) >= MOST:
                raise TooManyLeasesError
        token = secrets.randbits(62) + 1
        self[key] = token, until
        return token

    def _forget_some(self, now: int) -> None:
        """Look at some that were not looked at for longest, and forget those that have ended.

        Not at all of them: that would take milliseconds, with the lock held, each time somebody asks for one too many.
        """
        for key, held in list(islice(self.items(), _LOOKED_AT)):
            del self[key]
            if held[1] > now:
                self[key] = held  # now the last

    def give_back(self, key: bytes, token: int, now: int) -> bool:
        """End the lease that has this token; whether it was still held."""
        key = _short(key)
        held = self.get(key)
        if held is None or held[0] != token:
            return False
        del self[key]
        return held[1] > now


def _short(key: bytes) -> bytes:
    return key if len(key) <= _LONGEST else b"#" * (_LONGEST + 1) + hashlib.blake2b(key, digest_size=32).digest()
