"""Values as rows of bits: the first bit of a value is the highest of its first byte. The keyspace lock is held.

Bits are not looked at one by one: long values are counted, searched and combined as whole integers or by the methods of
bytes, which run in C. What only reads hands the value on and does that after the lock is released.
"""

from __future__ import annotations

from functools import partial, reduce
from operator import and_, or_, xor

from kvserver import errors
from kvserver.commands.arguments import as_integer, integer
from kvserver.commands.registry import Flags, Group, Keys, command
from kvserver.protocol.replies import Deferred, Error
from kvserver.store.memory import Database
from kvserver.store.values import Edited

_bitmap = partial(command, group=Group.BITMAP)
_READ = Keys(1, 1, 1, "RO access")
_INVERTED = bytes(255 - byte for byte in range(256))
_RANGE = "[start [end [BYTE | BIT]]]"


def bit_offset(db: Database, text: bytes, width: int = 0) -> int:
    """The place of a bit; with ``width``, ``#n`` is the n-th field of so many bits.

    Raises:
        Error: it is no integer, negative, or beyond the longest value there may be.
    """
    counted = width > 0 and text.startswith(b"#")
    offset = as_integer(text[1:] if counted else text)
    if counted and offset is not None:
        offset *= width
    if offset is None or offset < 0 or offset >> 3 >= db.keyspace.max_value:
        raise Error(errors.BIT_OFFSET)
    return offset


@_bitmap("GETBIT", "key offset", arity=3, flags=Flags.READONLY | Flags.FAST, keys=_READ, since="2.2.0")
def getbit(db: Database, key: bytes, offset: bytes) -> int:
    """Returns the bit at an offset, 0 beyond the end of the value."""
    place = bit_offset(db, offset)
    value = db.get(key) or b""
    byte = value[place >> 3] if place >> 3 < len(value) else 0
    return byte >> (7 - (place & 7)) & 1


@_bitmap(
    "SETBIT",
    "key offset bit",
    arity=4,
    flags=Flags.WRITE | Flags.DENYOOM,
    keys=Keys(1, 1, 1, "RW access update"),
    since="2.2.0",
    complexity="O(N), N the length of the value",
)
def setbit(db: Database, key: bytes, offset: bytes, value: bytes) -> int:
    """Sets the bit at an offset, padding the value with zero bytes; returns the bit that was there."""
    place = bit_offset(db, offset)
    if value not in (b"0", b"1"):
        raise Error(errors.BIT_VALUE)
    old = db.seek(key)
    new = bytearray(old or b"")
    new.extend(bytes(max(0, (place >> 3) + 1 - len(new))))
    mask = 1 << (7 - (place & 7))
    before = int(bool(new[place >> 3] & mask))
    if old is None or len(new) > len(old) or before != int(value):
        new[place >> 3] = new[place >> 3] | mask if value == b"1" else new[place >> 3] & ~mask
        db.replace(key, Edited(new), "setbit", (place >> 3, (place >> 3) + 1))
    return before


class _Range:
    """The bits that ``start [end [BYTE | BIT]]`` picks, both ends included, negative ones counted from the end."""

    def __init__(self, words: tuple[bytes, ...]) -> None:
        if len(words) > 3:
            raise Error(errors.SYNTAX)
        self._start = integer(words[0]) if words else 0
        if len(words) == 3 and words[2].upper() not in (b"BYTE", b"BIT"):
            raise Error(errors.SYNTAX)
        self.has_end = len(words) > 1
        self._end = integer(words[1]) if self.has_end else -1
        self._unit = 1 if len(words) == 3 and words[2].upper() == b"BIT" else 8

    def bits(self, value: bytes) -> tuple[int, int]:
        """The first bit, and the one behind the last; nothing is picked if they are not in order."""
        total = len(value) * 8 // self._unit
        if self._start < 0 and self._end < 0 and self._start > self._end:
            return 0, 0
        start = max(0, self._start + total if self._start < 0 else self._start)
        end = max(0, self._end + total if self._end < 0 else self._end)
        return start * self._unit, (min(end, total - 1) + 1) * self._unit


def _part(value: bytes, first: int, behind: int) -> tuple[int, int]:
    """Bits of a value as an integer, and how many they are."""
    whole = int.from_bytes(value[first >> 3 : (behind + 7) >> 3], "big")
    size = behind - first
    return whole >> (-behind & 7) & ((1 << size) - 1), size


@_bitmap(
    "BITCOUNT", f"key {_RANGE}", arity=-2, flags=Flags.READONLY, keys=_READ, since="2.6.0",
    complexity="O(N), N bytes in the range",
)  # fmt: skip
def bitcount(db: Database, key: bytes, *words: bytes) -> Deferred:
    """Returns how many bits are set, in a range of bytes or bits if one is given."""
    wanted = _Range(words)
    value = db.get(key) or b""

    def count() -> int:
        first, behind = wanted.bits(value)
        return _part(value, first, behind)[0].bit_count() if first < behind else 0

    return count


@_bitmap(
    "BITPOS", f"key bit {_RANGE}", arity=-3, flags=Flags.READONLY, keys=_READ, since="2.8.7",
    complexity="O(N), N bytes in the range",
)  # fmt: skip
def bitpos(db: Database, key: bytes, bit: bytes, *words: bytes) -> int | Deferred:
    """Returns where the first bit of the given value is, -1 if there is none; zeros follow a value without an end."""
    wanted = integer(bit)
    if wanted not in (0, 1):
        raise Error(errors.BIT_ARGUMENT)
    picked = _Range(words)
    value = db.get(key)
    if value is None:
        return -wanted

    def find() -> int:
        first, behind = picked.bits(value)
        found = _first_bit(value, wanted, first, behind) if first < behind else -1
        return len(value) * 8 if found < 0 and not wanted and not picked.has_end and first < behind else found

    return find


def _first_bit(value: bytes, wanted: int, first: int, behind: int) -> int:
    """The place of the first ``wanted`` bit from ``first`` on, before ``behind``; -1 if there is none."""
    other = b"\0" if wanted else b"\xff"
    head, size = _part(value, first, min(behind, (first | 7) + 1))  # up to the end of its byte
    if size and head != (0 if wanted else (1 << size) - 1):
        return first + _leading(head, size, wanted)
    if first + size >= behind:
        return -1
    start = first + size >> 3
    rest = value[start : behind + 7 >> 3]
    place = (start + len(rest) - len(rest.lstrip(other))) * 8
    if place >= behind:
        return -1
    found = place + _leading(value[place >> 3], 8, wanted)
    return found if found < behind else -1


def _leading(bits: int, size: int, wanted: int) -> int:
    """How many bits come before the first ``wanted`` one."""
    return size - (bits if wanted else ~bits & ((1 << size) - 1)).bit_length()


_COMBINE = {b"AND": and_, b"OR": or_, b"XOR": xor}


@_bitmap(
    "BITOP",
    "<AND | OR | XOR | NOT> destkey srckey [srckey ...]",
    arity=-4,
    flags=Flags.WRITE | Flags.DENYOOM,
    keys=Keys(2, -1, 1, "OW update", second="RO access"),
    since="2.6.0",
    complexity="O(N), N bytes of all values",
)
def bitop(db: Database, operation: bytes, destination: bytes, *keys: bytes) -> int:
    """Combines values bit by bit and stores the result; returns its length in bytes, that of the longest value."""
    name = operation.upper()
    if name not in (*_COMBINE, b"NOT"):
        raise Error(errors.SYNTAX)
    if name == b"NOT" and len(keys) != 1:
        raise Error(errors.BITOP_NOT)
    values = [db.get(key) or b"" for key in keys]
    size = max(map(len, values))
    if not size:
        db.remove(destination)
        return 0
    db.put(destination, Edited(_combined(name, values, size)))
    return size


def _combined(name: bytes, values: list[bytes], size: int) -> bytes:
    if name == b"NOT":
        return values[0].translate(_INVERTED)
    numbers = (int.from_bytes(value.ljust(size, b"\0"), "big") for value in values)
    return reduce(_COMBINE[name], numbers).to_bytes(size, "big")
