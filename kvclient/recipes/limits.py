"""A rate limit: so many times within so many seconds, counted for everybody who uses the same key.

The count begins with the first use and ends with its key, so one round trip does: SET NX with a lifetime, INCR, PTTL.

Not here: waiting for one's turn, which is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvclient.errors import ProtocolError
from kvclient.recipes.steps import Together

if TYPE_CHECKING:
    from kvclient.protocol import Key
    from kvclient.recipes.steps import Recipe


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Whether this time was within the limit. It is true or false accordingly.

    Attributes:
        allowed: whether it was.
        remaining: how many more times there are before `retry_after` seconds have passed.
        retry_after: seconds until the count begins anew.
    """

    allowed: bool
    remaining: int
    retry_after: float

    def __bool__(self) -> bool:
        return self.allowed


def use(key: Key, limit: int, per: float) -> Recipe[RateLimit]:
    """Count one use of `key`, of which `limit` are allowed within `per` seconds."""
    if limit < 1 or per <= 0:
        raise ValueError("a rate limit is at least 1, in a positive number of seconds")
    reply = yield Together(((b"SET", key, 0, b"NX", b"PX", max(1, int(per * 1000))), (b"INCR", key), (b"PTTL", key)))
    match reply:
        case [_, int(count), int(left)]:
            return RateLimit(count <= limit, max(0, limit - count), max(0, left) / 1000)
    raise ProtocolError("the server answered a rate limit with something else than numbers")
