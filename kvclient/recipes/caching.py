"""A value that is computed when it is missing, by one caller at a time.

The value's own key tells how old it is: it lives for ttl + stale seconds, so it is fresh while more than `stale` of
them are left, and due when no more than `early` of its ttl are. Who finds it missing or due takes a lease that only one
caller gets and that ends by itself. That one computes; the others take the value there is, or wait if there is none.

kvserver gives leases itself (KV.GETL), in one round trip, and voids one when the key is set or deleted meanwhile: what
was computed from older data is then not stored. With other servers the lease is a key beside the value's, and the
caller who deletes a value while it is being computed may see the older one stored.

Not here: how values become bytes.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from kvclient.cluster.slots import beside
from kvclient.errors import CallTimeoutError, ProtocolError, UnknownCommandError
from kvclient.recipes.steps import Ask, Call, Pause, Together
from kvclient.recipes.tokens import delete_if_owned

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.protocol import Reply
    from kvclient.recipes.steps import Recipe

_PAUSE: Final = 0.02  # seconds between looks at a value that somebody else computes


class _Found(NamedTuple):
    """What a look has found.

    Attributes:
        value: the value, if there is one.
        left: its milliseconds to live; -1 for ever.
        lease: what the caller holds, if it is the one to compute.
    """

    value: bytes | None
    left: int
    lease: bytes | int | None


class Cache:
    """How values are cached on one server. What it learns of the server, that it has no leases, it remembers.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._has_leases = True  # until the server says otherwise

    def get_or_set(self, key: str, *, ttl: float, stale: float, early: float, lease: float) -> Recipe[bytes]:
        """The value of a key, computed (by a Call step) and stored if it is missing or due.

        Args:
            key: the key.
            ttl: seconds for which a value is fresh.
            stale: seconds for which an old one will do, while somebody computes a new one.
            early: seconds before its end from which one caller computes a new one.
            lease: seconds that computing may take; then another caller may begin.

        Raises:
            CallTimeoutError: others had the lease for too long, and no value came.
        """
        if ttl <= 0 or stale < 0 or lease <= 0 or not 0 <= early < ttl:
            raise ValueError("ttl and lease must be positive, stale not negative, and early less than ttl")
        duration, due = max(1, int(lease * 1000)), int((stale + early) * 1000)
        deadline = self._now() + 2 * lease
        while True:
            found = yield from self._look(key, duration, due)
            if found.lease is not None:
                is_fresh = found.value is not None and found.left > stale * 1000
                return (yield from self._compute(key, ttl + stale, found, is_fresh=is_fresh))
            if found.value is not None:
                return found.value
            if self._now() > deadline:
                message = f"nobody computed the value of {key!r} in time: give a longer lease="
                raise CallTimeoutError(message, applied="no")
            yield Pause(_PAUSE)

    def _compute(self, key: str, lifetime: float, found: _Found, *, is_fresh: bool) -> Recipe[bytes]:
        """Compute and store, with the lease held; give it back in any case."""
        assert found.lease is not None
        try:
            value = yield Call()
            if not isinstance(value, bytes):
                raise TypeError(f"the value of {key!r} must be bytes, not {type(value).__name__}")
        except Exception:
            yield from self._give_back(key, found.lease)
            if is_fresh and found.value is not None:  # it was only early, and the next caller may have better luck
                return found.value
            raise
        yield from self._store(key, value, max(1, int(lifetime * 1000)), found.lease)
        return value

    # ---- the server's leases, or keys that stand for them --------------------------------------------------

    def _look(self, key: str, duration: int, due: int) -> Recipe[_Found]:
        """Look, and take the lease if it is to be had and the value is missing or due."""
        if self._has_leases:
            try:
                reply = yield Ask((b"KV.GETL", key, duration, b"STALE", due))
            except UnknownCommandError:
                self._has_leases = False
            else:
                match reply:
                    case [bytes() | None as value, int(left), int() | None as lease]:
                        return _Found(value, left, lease)
                raise ProtocolError("the server answered KV.GETL with something else")
        value, left = _value_and_ttl((yield Together(((b"GET", key), (b"PTTL", key)))))
        if value is not None and (left == -1 or left > due):
            return _Found(value, left, None)
        return (yield from self._take_key(key, duration, due))

    @staticmethod
    def _take_key(key: str, duration: int, due: int) -> Recipe[_Found]:
        """Take the lease as a key of its own, with another look: somebody may have stored a value since the first."""
        token = secrets.token_hex(16).encode()
        take = (b"SET", _beside(key), token, b"NX", b"PX", duration)
        reply = yield Together((take, (b"GET", key), (b"PTTL", key)))
        if not isinstance(reply, list):
            raise ProtocolError("the server answered a transaction with something else")
        taken, *seen = reply
        value, left = _value_and_ttl(seen)
        if taken is None:
            return _Found(value, left, None)
        if value is not None and (left == -1 or left > due):
            yield from delete_if_owned(_beside(key), token)
            return _Found(value, left, None)
        return _Found(value, left, token)

    @staticmethod
    def _store(key: str, value: bytes, lifetime: int, lease: bytes | int) -> Recipe[None]:
        if isinstance(lease, int):
            yield Ask((b"KV.SETL", key, lease, value, b"PX", lifetime))
            return
        try:
            yield Ask((b"SET", key, value, b"PX", lifetime))
        finally:
            yield from delete_if_owned(_beside(key), lease)

    @staticmethod
    def _give_back(key: str, lease: bytes | int) -> Recipe[None]:
        if isinstance(lease, int):
            yield Ask((b"KV.SETL", key, lease))
        else:
            yield from delete_if_owned(_beside(key), lease)


def _beside(key: str) -> bytes:
    return beside(key.encode(), "lease")


def _value_and_ttl(reply: Reply) -> tuple[bytes | None, int]:
    match reply:
        case [bytes() | None as value, int(left)]:
            return value, left
    raise ProtocolError("the server answered GET and PTTL with something else")
