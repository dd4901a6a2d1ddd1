"""BITFIELD: integers of any width within a value, read and changed several at a time. The keyspace lock is held."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from kvserver import errors
from kvserver.commands.arguments import integer
from kvserver.commands.bitmaps import bit_offset
from kvserver.commands.registry import Flags, Group, Keys, command
from kvserver.protocol.replies import Error, Reply
from kvserver.store.memory import Database
from kvserver.store.values import Edited

_bitmap = partial(command, group=Group.BITMAP)
_ENCODING = re.compile(rb"([iu])([1-9][0-9]?)")
_OVERFLOWS = (b"WRAP", b"SAT", b"FAIL")


@dataclass(frozen=True, slots=True)
class _Field:
    """A place in a value, and how the bits there are read."""

    signed: bool
    width: int
    offset: int

    @property
    def least(self) -> int:
        return -(1 << self.width - 1) if self.signed else 0

    @property
    def most(self) -> int:
        return (1 << self.width - self.signed) - 1

    def wrapped(self, number: int) -> int:
        number &= (1 << self.width) - 1
        return number - (1 << self.width) if number > self.most else number

    def read(self, value: bytes | bytearray) -> int:
        first, last = self.offset >> 3, self.offset + self.width - 1 >> 3
        whole = int.from_bytes(bytes(value[first : last + 1]).ljust(last + 1 - first, b"\0"), "big")
        return self.wrapped(whole >> (7 - (self.offset + self.width - 1 & 7)))

    def write(self, value: bytearray, number: int) -> None:
        """Put the number there; the value is long enough."""
        first, last = self.offset >> 3, self.offset + self.width - 1 >> 3
        shift = 7 - (self.offset + self.width - 1 & 7)
        mask = (1 << self.width) - 1
        whole = int.from_bytes(value[first : last + 1], "big") & ~(mask << shift) | (number & mask) << shift
        value[first : last + 1] = whole.to_bytes(last + 1 - first, "big")


@dataclass(frozen=True, slots=True)
class _Operation:
    name: bytes  # b"GET", b"SET" or b"INCRBY"
    field: _Field
    amount: int
    overflow: bytes

    def result(self, old: int) -> int | None:
        """The number to be written, None if it does not fit and is to fail."""
        field = self.field
        new = old + self.amount if self.name == b"INCRBY" else self.amount
        if self.name == b"SET" and not field.signed:
            new &= 2**64 - 1  # as unsigned as the field: a negative number is a huge one
        if field.least <= new <= field.most or self.overflow == b"WRAP":
            return field.wrapped(new)
        return None if self.overflow == b"FAIL" else max(field.least, min(field.most, new))


def _operations(db: Database, words: tuple[bytes, ...]) -> Iterator[_Operation]:
    overflow = b"WRAP"
    rest = list(words[::-1])
    while rest:
        name = rest.pop().upper()
        if name == b"OVERFLOW" and rest:
            overflow = rest.pop().upper()
            if overflow not in _OVERFLOWS:
                raise Error(errors.BITFIELD_OVERFLOW)
            continue
        if name not in (b"GET", b"SET", b"INCRBY") or len(rest) < (2 if name == b"GET" else 3):
            raise Error(errors.SYNTAX)
        field = _field(db, rest.pop(), rest.pop())
        yield _Operation(name, field, 0 if name == b"GET" else integer(rest.pop()), overflow)


def _field(db: Database, encoding: bytes, offset: bytes) -> _Field:
    match = _ENCODING.fullmatch(encoding)
    signed, width = (match[1] == b"i", int(match[2])) if match else (False, 0)
    if not 1 <= width <= (64 if signed else 63):
        raise Error(errors.BITFIELD_TYPE)
    return _Field(signed, width, bit_offset(db, offset, width))


@_bitmap(
    "BITFIELD",
    "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>]"
    " <SET encoding offset number | INCRBY encoding offset number>] ...",
    arity=-2,
    flags=Flags.WRITE | Flags.DENYOOM,
    keys=Keys(1, 1, 1, "RW access update variable_flags"),
    since="3.2.0",
    complexity="O(N), N operations",
)
def bitfield(db: Database, key: bytes, *words: bytes) -> Reply:
    """Reads, sets and increments integers of any width; the new value or null where it would overflow and FAIL says so.

    Every operation is read before the first is run. ``#n`` as an offset is the n-th integer of that width.
    """
    operations = list(_operations(db, words))
    writes = [each.field for each in operations if each.name != b"GET"]
    if not writes:
        value = db.get(key) or b""
        return [each.field.read(value) for each in operations]
    old = db.seek(key)
    new = bytearray(old or b"")
    new.extend(bytes(max(0, max(field.offset + field.width + 7 >> 3 for field in writes) - len(new))))
    replies, has_changed = _run(operations, new)
    if has_changed or old is None or len(new) > len(old):
        span = min(field.offset >> 3 for field in writes), max(field.offset + field.width + 7 >> 3 for field in writes)
        db.replace(key, Edited(new), "setbit" if has_changed else None, span)
    return replies


def _run(operations: list[_Operation], value: bytearray) -> tuple[list[Reply], bool]:
    """The reply to each operation, and whether any has written."""
    replies: list[Reply] = []
    has_changed = False
    for each in operations:
        before = each.field.read(value)
        if each.name == b"GET":
            replies.append(before)
            continue
        after = each.result(before)
        if after is not None:
            each.field.write(value, after)
            has_changed = True
        replies.append(None if after is None else before if each.name == b"SET" else after)
    return replies, has_changed


@_bitmap(
    "BITFIELD_RO",
    "key [GET encoding offset [GET encoding offset ...]]",
    arity=-2,
    flags=Flags.READONLY | Flags.FAST,
    keys=Keys(1, 1, 1, "RO access"),
    since="6.0.0",
    complexity="O(N), N operations",
)
def bitfield_ro(db: Database, key: bytes, *words: bytes) -> Reply:
    """Reads integers of any width."""
    operations = list(_operations(db, words))
    if any(each.name != b"GET" for each in operations):
        raise Error(errors.BITFIELD_READ_ONLY)
    value = db.get(key) or b""
    return [each.field.read(value) for each in operations]
