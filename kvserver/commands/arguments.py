"""Reading arguments: integers, times to live, options. Strict where Python's own parsers are lenient."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvserver import errors
from kvserver.protocol.replies import Error

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_NAME_BYTES = range(0x21, 0x7F)


_ALWAYS_FIT = 18  # digits of a number that is in any case within 64 bits
_ZERO = b"0"[0]


def as_integer(text: bytes) -> int | None:
    """A signed 64-bit integer in its one canonical form, or None. ``int`` also takes ``+1``, ``1_0`` and `` 1``."""
    if len(text) <= _ALWAYS_FIT and text.isdigit() and (text[0] != _ZERO or len(text) == 1):
        return int(text)  # what nearly all are
    if not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if INTEGER_MIN <= value <= INTEGER_MAX else None


def integer(text: bytes, fault: str = errors.NOT_AN_INTEGER) -> int:
    """A signed 64-bit integer.

    Raises:
        Error: ``fault``.
    """
    value = as_integer(text)
    if value is None:
        raise Error(fault)
    return value


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """How an option states a deadline: its factor to milliseconds, and whether it counts from now."""

    factor: int
    relative: bool


SECONDS = TimeUnit(1000, relative=True)
MILLISECONDS = TimeUnit(1, relative=True)
UNIX_SECONDS = TimeUnit(1000, relative=False)
UNIX_MILLISECONDS = TimeUnit(1, relative=False)

TIME_OPTIONS = {b"EX": SECONDS, b"PX": MILLISECONDS, b"EXAT": UNIX_SECONDS, b"PXAT": UNIX_MILLISECONDS}


def deadline(text: bytes, unit: TimeUnit, now: int, command: str, *, positive: bool = True) -> int:
    """The wall-clock time in milliseconds that ``text`` means.

    Args:
        text: the number as sent.
        unit: what it counts.
        now: wall-clock milliseconds.
        command: for the error's text.
        positive: whether zero and less are refused.

    Raises:
        Error: not an integer, not positive, or beyond 64 bits of milliseconds.
    """
    amount = integer(text)
    moment = amount * unit.factor + (now if unit.relative else 0)
    if (positive and amount <= 0) or not INTEGER_MIN <= amount * unit.factor <= INTEGER_MAX or moment > INTEGER_MAX:
        raise errors.invalid_expire(command)
    return moment


@dataclass(frozen=True, slots=True)
class ValueOptions:
    """The options of SET and GETEX, as given."""

    condition: bytes | None = None  # b"NX", b"XX", b"IFEQ", b"IFNE", b"IFDEQ" or b"IFDNE"
    operand: bytes = b""  # what the last four compare with
    get: bool = False
    keep_ttl: bool = False
    persist: bool = False
    time: bytes | None = None
    unit: TimeUnit = SECONDS

    def deadline(self, now: int, command: str) -> int | None:
        """When the key is to expire (ms), or None when no time was given."""
        return None if self.time is None else deadline(self.time, self.unit, now, command)


def value_options(words: Sequence[bytes], *, reading: bool) -> ValueOptions:
    """Parse ``[NX | XX | IFEQ value ...] [GET] [EX n | PX n | EXAT n | PXAT n | KEEPTTL]`` in any order.

    With ``reading`` (GETEX) it is ``[EX n | PX n | EXAT n | PXAT n | PERSIST]``. An option but IFEQ and its like may be
    repeated, the last one counts; two different ones of a group are a syntax error.
    """
    condition: bytes | None = None
    lifetime: bytes | None = None
    operand, time, get = b"", b"", False
    rest = iter(words)
    for word in rest:
        option = word.upper()
        if option in TIME_OPTIONS and lifetime in (None, option):
            lifetime, time = option, _following(rest)
        elif option == (b"PERSIST" if reading else b"KEEPTTL") and lifetime in (None, option):
            lifetime = option
        elif reading:
            raise Error(errors.SYNTAX)
        elif option in (b"NX", b"XX") and condition in (None, option):
            condition = option
        elif option in (b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE") and condition is None:
            condition, operand = option, _following(rest)
        elif option == b"GET":
            get = True
        else:
            raise Error(errors.SYNTAX)
    unit = TIME_OPTIONS.get(lifetime) if lifetime is not None else None
    return ValueOptions(
        condition=condition,
        operand=operand,
        get=get,
        keep_ttl=lifetime == b"KEEPTTL",
        persist=lifetime == b"PERSIST",
        time=None if unit is None else time,
        unit=unit or SECONDS,
    )


def _following(rest: Iterator[bytes]) -> bytes:
    word = next(rest, None)
    if word is None:
        raise Error(errors.SYNTAX)
    return word


def checked_name(name: bytes, fault: str) -> bytes:
    """A name that can stand in CLIENT LIST: printable and without spaces.

    Raises:
        Error: ``fault``.
    """
    if not all(byte in _NAME_BYTES for byte in name):
        raise Error(fault)
    return name
