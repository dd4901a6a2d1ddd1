"""What a handler may return: the reply types of RESP that Python has no type of its own for.

``bytes`` is a bulk string, ``None`` null, ``int`` an integer, ``float`` a double, ``bool`` a boolean, ``list``
an array, ``dict`` a map, an :class:`Error` an error; the rest is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias


class SimpleString(bytes):
    """A short text without line ends, sent as ``+text``."""

    __slots__ = ()


class Verbatim(bytes):
    """Text for people: a verbatim string (``txt``) in RESP3, a bulk string in RESP2."""

    __slots__ = ()


class Set(list["Reply"]):
    """Unordered members: a set in RESP3, an array in RESP2."""

    __slots__ = ()


class IntegerMap(dict[int, int]):
    """A map of integers to integers."""

    __slots__ = ()


class Push(list["Reply"]):
    """An out-of-band message: a push in RESP3, an array in RESP2."""

    __slots__ = ()


class Several(list["Reply"]):
    """More than one reply to one command, sent one after the other (SUBSCRIBE)."""

    __slots__ = ()


class Raw(bytes):
    """Sent as it is: what a test wants instead of a reply."""

    __slots__ = ()


class NullArray:
    """A null where an array is expected: RESP2 has a null of its own for it (EXEC)."""

    __slots__ = ()


class Error(Exception):
    """An error reply: its first word is the code clients switch on.

    A handler raises it; inside an array it may also stand as a value.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def code(self) -> str:
        """The first word, for example ``ERR`` or ``WRONGTYPE``."""
        return self.text.partition(" ")[0]


Reply: TypeAlias = (
    "bytes | int | float | bool | Error | list[Reply] | dict[bytes, Reply] | IntegerMap | NullArray | None"
)
"""What is encoded for the client."""

Deferred: TypeAlias = Callable[[], Reply]
"""The rest of a command's work, on values that no longer change, to be done after the lock is released."""

NULL_ARRAY = NullArray()

OK = SimpleString(b"OK")
