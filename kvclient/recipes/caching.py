"""A value that is computed when it is missing, by one caller at a time.

The value's own key tells how old it is: it lives for ttl + stale seconds, so it is fresh while more than `stale` of
them are left. Who finds it missing or no longer fresh takes a lease, a key beside it that only one caller gets and that
ends by itself. That one computes; the others take the old value meanwhile, or wait for the new one if there is none.

Not here: how values become bytes.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from kvclient.errors import CallTimeoutError, ProtocolError
from kvclient.recipes.steps import Ask, Call, Pause, Together
from kvclient.recipes.tokens import delete_if_owned

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.protocol import Reply
    from kvclient.recipes.steps import Recipe

_PAUSE: Final = 0.02  # seconds between looks at a value that somebody else computes


def get_or_set(key: str, ttl: float, stale: float, lease: float, now: Callable[[], float]) -> Recipe[bytes]:
    """The value of a key, computed (by a Call step) and stored if it is missing or too old.

    Args:
        key: the key; the lease is beside it, at key + ":lease".
        ttl: seconds for which a value is fresh.
        stale: seconds for which an old one will do, while somebody computes a new one.
        lease: seconds that computing may take; then another caller may begin.
        now: monotonic seconds.

    Raises:
        CallTimeoutError: others had the lease for too long, and no value came.
    """
    if ttl <= 0 or stale < 0 or lease <= 0:
        raise ValueError("ttl and lease must be positive, and stale not negative")
    token = secrets.token_hex(16).encode()
    look = ((b"GET", key), (b"PTTL", key))
    take = (b"SET", f"{key}:lease", token, b"NX", b"PX", max(1, int(lease * 1000)))
    deadline = now() + 2 * lease
    while True:
        value, is_fresh = _judge((yield Together(look)), stale)
        if value is not None and is_fresh:
            return value
        # With another look: somebody may have had the lease, stored a value and given it back since the first.
        taken, *seen = _list((yield Together((take, *look))))
        value, is_fresh = _judge(seen, stale)
        if taken is not None:
            if value is not None and is_fresh:
                yield from delete_if_owned(f"{key}:lease", token)
                return value
            return (yield from _compute(key, ttl + stale, token))
        if value is not None:
            return value
        if now() > deadline:
            raise CallTimeoutError(f"nobody computed the value of {key!r} in time: give a longer lease=", applied="no")
        yield Pause(_PAUSE)


def _compute(key: str, lifetime: float, token: bytes) -> Recipe[bytes]:
    """Compute and store, with the lease held; give it back in any case."""
    lease = f"{key}:lease"
    try:
        value = yield Call()
        if not isinstance(value, bytes):
            raise TypeError(f"the value of {key!r} must be bytes, not {type(value).__name__}")
        yield Ask((b"SET", key, value, b"PX", max(1, int(lifetime * 1000))))
    except Exception:
        yield from delete_if_owned(lease, token)
        raise
    yield from delete_if_owned(lease, token)
    return value


def _judge(reply: Reply, stale: float) -> tuple[bytes | None, bool]:
    """A value, if there is one, and whether it is fresh."""
    match reply:
        case [bytes(value), int(left)]:
            return value, left == -1 or left > stale * 1000
        case [None, int()]:
            return None, False
    raise ProtocolError("the server answered GET and PTTL with something else")


def _list(reply: Reply) -> list[Reply]:
    if not isinstance(reply, list):
        raise ProtocolError("the server answered a transaction with something else")
    return reply
