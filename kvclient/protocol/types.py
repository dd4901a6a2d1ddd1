"""The types of what is sent and of what comes back. Not here: bytes of RESP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from kvclient.errors import ServerError

Key: TypeAlias = bytes | str
Name: TypeAlias = bytes | str  # of what is no key: a channel, a pattern, a user
Value: TypeAlias = bytes | bytearray | memoryview | str | int | float
Reply: TypeAlias = "bool | int | float | bytes | ServerError | list[Reply] | dict[Reply, Reply] | set[Reply] | None"


class SimpleString(bytes):
    """A status such as OK: bytes like any other, told apart so that a prompt can show it without quotes."""

    __slots__ = ()


class Verbatim(bytes):
    """Text with a format of three letters before it.

    Attributes:
        format: for example "txt" or "mkd".
    """

    format: str

    def __new__(cls, text: bytes, kind: str = "txt") -> Self:
        """Make the text, remembering its format."""
        self = super().__new__(cls, text)
        self.format = kind
        return self


class Push(list["Reply"]):
    """A message the server sent without being asked; its first element names its kind."""

    __slots__ = ()
