"""Which node has a key: slots, hash tags, and the map from slots to nodes. Without input or output.

A key's slot is a checksum of its name (CRC-16 of the XMODEM kind) modulo 16384; of a name with something in braces, of
that alone, so {user:7}.name and {user:7}.cart are on one node. See the cluster specification of Redis and Valkey.
"""

from __future__ import annotations

import binascii
import random
from typing import TYPE_CHECKING, Final, NamedTuple

from kvclient.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvclient.protocol import Reply

SLOTS: Final = 16384


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def slot_of(key: bytes) -> int:
    """The slot of a key, from 0 to 16383."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOTS


def beside(key: bytes, name: str) -> bytes:
    """A key for what belongs to another key, in the same slot: on a cluster, both can be in one transaction.

    It begins with that key, so it is in the same namespace and matches the same patterns of permissions. Four letters
    at its end make the slot what it has to be, unless the key has a part in braces, which does. It is the same
    everywhere, so what moves from one server to a cluster finds it again.
    """
    start = b"%b:%b" % (key, name.encode())
    if slot_of(start) == slot_of(key):
        return start
    start += b":"
    wanted = (slot_of(key) ^ binascii.crc_hqx(b"@@@@", binascii.crc_hqx(start, 0))) % SLOTS
    ends = ((wanted ^ checksum, last) for checksum, last in _LAST.items())
    first, last = next((_FIRST[rest], last) for rest, last in ends if rest in _FIRST)
    return start + bytes(letter | 0x40 for letter in first + last)


def _checksums(place: int) -> dict[int, bytes]:
    """What two letters from @ to O at one of two places add to a checksum, which is linear: by exclusive or."""
    pairs = (bytes(divmod(number, 16)) for number in range(256))
    return {binascii.crc_hqx(bytes(2 * place) + pair + bytes(2 - 2 * place), 0) % SLOTS: pair for pair in pairs}


_FIRST, _LAST = _checksums(0), _checksums(1)


class SlotMap:
    """Who has which slot, as some node has told it. Never changed: a newer map replaces it.

    Args:
        ranges: first slot, last slot, and who has them.
        replicas: nodes that have none.

    Attributes:
        primaries: the nodes that have slots, in the order of their first slots.
        nodes: all of them.
    """

    def __init__(self, ranges: Iterable[tuple[int, int, Address]], replicas: Iterable[Address] = ()) -> None:
        self._owners: list[Address | None] = [None] * SLOTS
        firsts: dict[Address, int] = {}
        for first, last, address in sorted(ranges):
            self._owners[first : last + 1] = [address] * (last + 1 - first)
            firsts.setdefault(address, first)
        self._firsts = firsts
        self.primaries: tuple[Address, ...] = tuple(firsts)
        self.nodes: tuple[Address, ...] = tuple(dict.fromkeys((*self.primaries, *replicas)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SlotMap):
            return NotImplemented
        return self._owners == other._owners and set(self.nodes) == set(other.nodes)

    __hash__ = None  # type: ignore[assignment]  # nobody looks one up

    def owner(self, slot: int) -> Address | None:
        """The node that has a slot; None if nobody has."""
        return self._owners[slot]

    def some_slot(self, address: Address) -> int:
        """A slot that the node has, which stands for it: whoever has it later has taken its place."""
        return self._firsts[address]

    def any_slot(self) -> int:
        """A slot of some node, chosen by chance."""
        return self._firsts[random.choice(self.primaries)]  # noqa: S311 - to spread what any node can answer

    def gained_since(self, older: SlotMap) -> list[Address]:
        """The nodes that have slots now which they did not have then."""
        pairs = zip(self._owners, older._owners, strict=True)
        return list(dict.fromkeys(now for now, then in pairs if now is not None and now != then))


def parse_slots(reply: Reply, asked: Address) -> SlotMap:
    """The map that CLUSTER SLOTS tells.

    Args:
        reply: its reply.
        asked: who answered; a node may leave out its own host.

    Raises:
        ProtocolError: it is no such reply, or nobody has any slot.
    """
    if not isinstance(reply, list) or not reply:
        raise ProtocolError("the node knows of no slots: it is not part of a cluster that is whole")
    ranges, replicas = [], []
    for row in reply:
        match row:
            case [int(first), int(last), primary, *others] if 0 <= first <= last < SLOTS:
                ranges.append((first, last, _address(primary, asked)))
                replicas += [_address(other, asked) for other in others]
            case _:
                raise ProtocolError(_NONSENSE)
    return SlotMap(ranges, replicas)


_NONSENSE: Final = "the node answered CLUSTER SLOTS with something else"


def _address(node: Reply, asked: Address) -> Address:
    match node:
        case [host, int(port), *_]:
            name = host.decode("utf-8", "replace") if isinstance(host, bytes) else ""
            return Address(asked.host if name in {"", "?"} else name, port)
    raise ProtocolError(_NONSENSE)
