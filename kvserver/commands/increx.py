"""INCREX: counting within bounds, with a time to live, as a rate limiter needs it. The keyspace lock is held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from kvserver import errors
from kvserver.commands import arguments
from kvserver.commands.arguments import INTEGER_MAX, INTEGER_MIN, TIME_OPTIONS, as_integer, integer
from kvserver.commands.longdouble import LARGEST, LongDouble
from kvserver.commands.registry import Flags, Group, Keys, command
from kvserver.protocol.replies import Error, Reply
from kvserver.store.memory import Database
from kvserver.store.values import Formatted

Number = int | Fraction


@dataclass(slots=True)
class _Options:
    amount: bytes | None = None
    decimal: bool = False
    lower: bytes | None = None
    upper: bytes | None = None
    saturate: bool = False
    time: tuple[bytes, bytes] | None = None  # the option and its number
    persist: bool = False
    only_without_ttl: bool = False


def _parse(words: Sequence[bytes]) -> _Options:
    options = _Options()
    rest = iter(words)
    for word in rest:
        match word.upper():
            case b"BYINT" | b"BYFLOAT" as kind if options.amount is None:
                options.amount, options.decimal = _following(rest), kind == b"BYFLOAT"
            case b"LBOUND" if options.lower is None:
                options.lower = _following(rest)
            case b"UBOUND" if options.upper is None:
                options.upper = _following(rest)
            case b"SATURATE":
                options.saturate = True
            case b"EX" | b"PX" | b"EXAT" | b"PXAT" as unit if options.time is None and not options.persist:
                options.time = unit, _following(rest)
            case b"PERSIST" if options.time is None:
                options.persist = True
            case b"ENX":
                options.only_without_ttl = True
            case _:
                raise Error(errors.SYNTAX)
    if options.only_without_ttl and options.time is None:
        raise Error(errors.SYNTAX)
    return options


def _following(rest: Iterator[bytes]) -> bytes:
    word = next(rest, None)
    if word is None:
        raise Error(errors.SYNTAX)
    return word


def _number(text: bytes, *, decimal: bool) -> Number:
    if not decimal:
        return integer(text)
    number = LongDouble.parse(text)
    if number is None:
        raise Error(errors.NOT_A_FLOAT)
    if not isinstance(number.value, Fraction):
        raise Error(errors.NAN_OR_INFINITY)
    return number.value


def _bounds(options: _Options) -> tuple[Number, Number]:
    """The least and the greatest result there may be: those given, or those of the type."""
    low: Number = -LARGEST if options.decimal else INTEGER_MIN
    high: Number = LARGEST if options.decimal else INTEGER_MAX
    if options.lower is not None:
        low = _number(options.lower, decimal=options.decimal)
    if options.upper is not None:
        high = _number(options.upper, decimal=options.decimal)
    if low > high:
        raise Error(errors.BOUNDS_CROSSED)
    return low, high


@command(
    "INCREX",
    "key [BYINT increment | BYFLOAT increment] [LBOUND bound] [UBOUND bound] [SATURATE]"
    " [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] [ENX]",
    group=Group.STRING,
    arity=-2,
    flags=Flags.WRITE | Flags.DENYOOM | Flags.FAST,
    keys=Keys(1, 1, 1, "RW access update"),
    since="8.8.0",
)
def increx(db: Database, key: bytes, *words: bytes) -> Reply:
    """Adds to a number within bounds, and sets its time to live; returns the new value and what was added.

    A result beyond a bound, or beyond the type, is not stored: the reply is the value as it is, and 0. With SATURATE
    the bound is stored instead. Without an option the time to live stays; ENX sets it only where there is none.
    """
    options = _parse(words)
    amount = _number(options.amount or b"1", decimal=options.decimal)
    low, high = _bounds(options)
    deadline = _deadline(db, options)
    old = db.seek(key)
    before = _number(old or b"0", decimal=options.decimal) if old is not None else 0
    after = before + amount
    if not low <= after <= high:
        if not options.saturate:
            return [_shown(before, options), _shown(0, options)]
        after = max(low, min(high, after))
        if not options.decimal and as_integer(b"%d" % (after - before)) is None:
            raise Error(errors.OVERFLOW)
    stored = _shown(after, options)
    db.replace(key, b"%d" % stored if isinstance(stored, int) else Formatted(stored), _event(options))
    if options.persist:
        db.persist(key)
    elif deadline is not None and not (options.only_without_ttl and db.deadline(key) is not None):
        db.expire_at(key, deadline)
    return [stored, _shown(after - before, options)]


def _deadline(db: Database, options: _Options) -> int | None:
    if options.time is None:
        return None
    unit, time = options.time
    return arguments.deadline(time, TIME_OPTIONS[unit], db.keyspace.now, "increx")


def _event(options: _Options) -> str:
    return "incrbyfloat" if options.decimal else "incrby"


def _shown(number: Number, options: _Options) -> int | bytes:
    return LongDouble.rounded(Fraction(number)).format() if options.decimal else int(number)
