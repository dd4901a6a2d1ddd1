"""What several commands' options have in common: how times, conditions and switches are written.

Not here: whole commands.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.commands.base import Args
    from kvclient.protocol import Value

T = TypeVar("T")
Ttl: TypeAlias = int | float | dt.timedelta
When: TypeAlias = int | float | dt.datetime


def whole_or_milliseconds(ttl: Ttl) -> tuple[bool, int]:
    """A duration as (True, seconds) if it is an int, else as (False, milliseconds)."""
    if isinstance(ttl, dt.timedelta):
        return False, round(ttl.total_seconds() * 1000)
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise TypeError(f"a ttl is int or float seconds, or a timedelta, not {type(ttl).__name__}")
    return (True, ttl) if isinstance(ttl, int) else (False, round(ttl * 1000))


def moment(when: When) -> tuple[bool, int]:
    """A point in time as (True, seconds since 1970) if it is an int, else as (False, milliseconds)."""
    if isinstance(when, dt.datetime):
        if when.tzinfo is None:
            raise ValueError("a datetime without a time zone is ambiguous: add one, such as datetime.UTC")
        return False, round(when.timestamp() * 1000)
    if isinstance(when, bool) or not isinstance(when, int | float):
        raise TypeError(f"a time is int or float seconds since 1970, or a datetime, not {type(when).__name__}")
    return (True, when) if isinstance(when, int) else (False, round(when * 1000))


def milliseconds(time: tuple[bool, int]) -> int:
    """What whole_or_milliseconds() or moment() gave, in milliseconds."""
    whole, number = time
    return number * 1000 if whole else number


def expiry(ttl: Ttl | None, expire_at: When | None, *, other: bytes | None = None) -> Args:
    """The option words of SET and GETEX for a lifetime; `other` is the word of a third way, if it was chosen."""
    if (ttl is not None) + (expire_at is not None) + (other is not None) > 1:
        raise ValueError("give at most one of ttl=, expire_at= and keep_ttl= or persist=")
    if ttl is not None:
        whole, number = whole_or_milliseconds(ttl)
        return (b"EX" if whole else b"PX", number)
    if expire_at is not None:
        whole, number = moment(expire_at)
        return (b"EXAT" if whole else b"PXAT", number)
    return () if other is None else (other,)


def comparison(
    pack: Callable[[T], Value],
    equal: T | None,
    not_equal: T | None,
    digest: str | bytes | None,
    not_digest: str | bytes | None,
) -> Args:
    """The option words for a condition about the present value; at most one may be given."""
    given: list[tuple[bytes, Value]] = [
        *((name, pack(value)) for name, value in ((b"IFEQ", equal), (b"IFNE", not_equal)) if value is not None),
        *((name, value) for name, value in ((b"IFDEQ", digest), (b"IFDNE", not_digest)) if value is not None),
    ]
    if len(given) > 1:
        raise ValueError("give at most one of if_equal=, if_not_equal=, if_digest= and if_not_digest=")
    return given[0] if given else ()


def words(**switches: bool) -> Args:
    """The names of the switches that are on, as option words: (b"NX",) for NX=True, XX=False."""
    return tuple(name.encode() for name, on in switches.items() if on)
