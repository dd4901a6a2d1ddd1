"""The commands that see a value as a row of bits.

Not here: values as bytes (strings.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command

if TYPE_CHECKING:
    from kvclient.protocol import Key

Unit: TypeAlias = Literal["byte", "bit"]


class BitGet(NamedTuple):
    """Read the integer of an encoding ("u8", "i16") at an offset: bits, or "#2" for the third of its width."""

    encoding: str
    offset: int | str

    def words(self) -> Args:
        """The operation as words of BITFIELD."""
        return (b"GET", self.encoding, self.offset)


class BitSet(NamedTuple):
    """Write an integer, and give the one that was there; `overflow` says what to do if it does not fit."""

    encoding: str
    offset: int | str
    value: int
    overflow: Literal["wrap", "sat", "fail"] = "wrap"

    def words(self) -> Args:
        """The operation as words of BITFIELD."""
        return (b"OVERFLOW", self.overflow, b"SET", self.encoding, self.offset, self.value)


class BitIncrement(NamedTuple):
    """Add to an integer, and give the new one; `overflow` says what to do if it does not fit."""

    encoding: str
    offset: int | str
    amount: int = 1
    overflow: Literal["wrap", "sat", "fail"] = "wrap"

    def words(self) -> Args:
        """The operation as words of BITFIELD."""
        return (b"OVERFLOW", self.overflow, b"INCRBY", self.encoding, self.offset, self.amount)


def _range(start: int | None, end: int | None, unit: Unit) -> Args:
    if start is None and end is None:
        return ()
    if end is None:
        if unit != "byte":
            raise ValueError("a range of bits needs an end; -1 is the last bit")
        return (0 if start is None else start,)
    return (0 if start is None else start, end, *(() if unit == "byte" else (b"BIT",)))


class BitmapCommands(CommandSet):
    """Commands that read and change single bits, and integers of any width."""

    @command("GETBIT", to.integer, safe=True)
    def getbit(self, key: Key, offset: int) -> Args:
        """Return the bit at an offset: 0 or 1.

        Server command: GETBIT.
        """
        return (b"GETBIT", key, offset)

    @command("SETBIT", to.integer)
    def setbit(self, key: Key, offset: int, bit: bool | Literal[0, 1]) -> Args:
        """Set the bit at an offset; return the one that was there.

        Server command: SETBIT.
        """
        return (b"SETBIT", key, offset, int(bit))

    @command("BITCOUNT", to.integer, safe=True)
    def bitcount(self, key: Key, start: int | None = None, end: int | None = None, *, unit: Unit = "byte") -> Args:
        """Return how many bits are set, from start to end (both included) if they are given.

        Server command: BITCOUNT. Before Valkey 8.1 and in Redis a start needs an end.
        """
        return (b"BITCOUNT", key, *_range(start, end, unit))

    @command("BITPOS", to.integer, safe=True)
    def bitpos(
        self, key: Key, bit: bool | Literal[0, 1], start: int | None = None, end: int | None = None, *,
        unit: Unit = "byte",
    ) -> Args:  # fmt: skip
        """Return the offset of the first bit of that value, -1 if there is none.

        Server command: BITPOS.
        """
        return (b"BITPOS", key, int(bit), *_range(start, end, unit))

    @command("BITOP", to.integer)
    def bitop(self, operation: Literal["and", "or", "xor", "not"], destination: Key, *keys: Key) -> Args:
        """Combine values bit by bit and store the result; return its length in bytes.

        Server command: BITOP.
        """
        return (b"BITOP", operation, destination, *keys)

    @command("BITFIELD", to.integers_or_none)
    def bitfield(self, key: Key, *operations: BitGet | BitSet | BitIncrement) -> Args:
        """Run several operations on integers within a value; return a number for each, None for one that failed.

        Server command: BITFIELD.
        """
        return (b"BITFIELD", key, *(word for operation in operations for word in operation.words()))

    @command("BITFIELD_RO", to.integers_or_none, safe=True)
    def bitfield_ro(self, key: Key, *operations: BitGet) -> Args:
        """Read several integers within a value.

        Server command: BITFIELD_RO.
        """
        return (b"BITFIELD_RO", key, *(word for operation in operations for word in operation.words()))
