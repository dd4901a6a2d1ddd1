"""SCAN over the nodes of a cluster, one primary after the other. Without input or output.

A cursor tells which primary it belongs to: it is that node's own cursor times a number, plus the node's place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvclient.cluster.split import Part
from kvclient.errors import ProtocolError
from kvclient.protocol import to_bytes

if TYPE_CHECKING:
    from kvclient.cluster.slots import SlotMap
    from kvclient.commands.base import Args
    from kvclient.protocol import Reply

_NODES: Final = 4096
"""More than a cluster has."""
_DIGITS: Final = 24
"""Of the largest number of 64 bits, times that."""


class Walk:
    """One page of a walk over all keys.

    Args:
        words: a SCAN command.
        slots: who has what.

    Attributes:
        part: what to send; None if the walk is over.
    """

    def __init__(self, words: Args, slots: SlotMap) -> None:
        cursor = to_bytes(words[1]) if len(words) > 1 else b""
        self._is_cursor = cursor.isdigit() and len(cursor) <= _DIGITS
        if not self._is_cursor:  # which a node shall say
            self.part: Part | None = Part(slots.any_slot(), words)
            return
        inner, self._place = divmod(int(cursor), _NODES)
        self._primaries = slots.primaries
        self.part = None
        if self._place < len(self._primaries):
            slot = slots.some_slot(self._primaries[self._place])
            self.part = Part(slot, (b"SCAN", inner, *words[2:]))

    def page(self, reply: Reply) -> Reply:
        """The page, with a cursor of the whole, from the reply to `part`; None stands for that of a walk that is over.

        Raises:
            ProtocolError: it is no page.
        """
        if self.part is None:
            return [b"0", []]
        if not self._is_cursor:
            return reply
        match reply:
            case [bytes(following), list(keys)] if following.isdigit():
                return [self._cursor(int(following)), keys]
        raise ProtocolError("the node answered SCAN with something else")

    def _cursor(self, inner: int) -> bytes:
        if inner:
            return b"%d" % (inner * _NODES + self._place)
        following = self._place + 1
        return b"%d" % (following if following < len(self._primaries) else 0)
