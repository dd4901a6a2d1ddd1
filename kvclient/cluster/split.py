"""A command as one part for one node, or as several, whose replies are one again. Without input or output."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from kvclient.cluster.slots import slot_of
from kvclient.commands.base import Whole
from kvclient.errors import CrossSlotError, ProtocolError, ServerError
from kvclient.protocol import to_bytes

if TYPE_CHECKING:
    from kvclient.cluster.keys import CommandInfo
    from kvclient.cluster.slots import SlotMap
    from kvclient.commands.base import Args
    from kvclient.protocol import Key, Reply


class Part(NamedTuple):
    """What one node is sent.

    Attributes:
        slot: of its keys; or one that stands for the node.
        words: a command.
        places: which of the whole command's keys it has, counted from 0.
    """

    slot: int
    words: Args
    places: tuple[int, ...] = ()


def parts_of(info: CommandInfo | None, words: Args, slots: SlotMap) -> list[Part]:
    """The parts of a command. A command without keys goes to some node, or to every primary.

    Args:
        info: what the servers say of the command; None if they do not know it, which one of them shall then say.
        words: the command.
        slots: who has what.

    Raises:
        CrossSlotError: its keys are in several slots, and it cannot be split, or shall not be.
    """
    if info is not None and info.simple and len(words) > 1:  # most commands
        return [Part(slot_of(to_bytes(words[1])), words)]
    keys = [] if info is None else info.keys(words)
    if info is None or not keys:
        everywhere = info is not None and info.request in {"all_shards", "all_nodes"} and info.response != "special"
        if everywhere or (info is not None and info.name == "RANDOMKEY"):
            return [Part(slots.some_slot(address), words) for address in slots.primaries]
        if info is not None and info.name == "PUBLISH" and len(words) > 1:
            return [Part(slot_of(to_bytes(words[1])), words)]  # any node would do, but messages shall keep their order
        return [Part(slots.any_slot(), words)]
    found = {slot_of(key) for key in keys}
    if len(found) == 1:
        return [Part(found.pop(), words)]
    if info.may_be_split and (len(words) - 1) % info.group:
        # A word is missing at the end. Its first key without what belongs to it is refused for that, by any node; the
        # whole would be for its slots, and parts would be applied.
        return [Part(slot_of(keys[0]), words[:2])]
    if isinstance(words, Whole) or not info.may_be_split:
        raise crossing(info.name)
    return _split(words, info.group)


def crossing(name: str) -> CrossSlotError:
    """The error that says so, and what to do."""
    return CrossSlotError("CROSSSLOT", f"{name.replace('|', ' ')} has keys of several slots")


_THE_SAME_ANYWHERE: Final = frozenset({"PING", "WAIT", "WAITAOF"})
"""What servers call a command for all nodes, though one node's reply is as good for who runs a transaction there."""


def is_for_all(info: CommandInfo | None, words: Args, slots: SlotMap) -> bool:
    """Whether a command speaks of the keys of all nodes, so that one of them alone would do a part of it."""
    if info is None or info.name in _THE_SAME_ANYWHERE or info.keys(words):
        return False
    return len(slots.primaries) > 1 and (info.name == "SCAN" or len(parts_of(info, words, slots)) > 1)


def not_for_one(info: CommandInfo | None) -> CrossSlotError:
    """The error for such a command where only one node is asked."""
    name = "the command" if info is None else info.name.replace("|", " ")
    return CrossSlotError("CROSSSLOT", f"{name} is for all nodes, and a transaction runs on one")


def one_slot(keys: Iterable[bytes], name: str) -> int | None:
    """The slot of all these keys; None if there are none.

    Raises:
        CrossSlotError: they are in several; `name` is what has them.
    """
    found = {slot_of(key) for key in keys}
    if len(found) > 1:
        raise crossing(name)
    return found.pop() if found else None


def listening_slot(channels: Iterable[Key], shards: Iterable[Key]) -> int | None:
    """The slot whose node to listen at: that of the shard channels, which alone tells of them; None for any node.

    Every node tells of other channels. publish() goes to the one that would have a key of the channel's name, so who
    listens there waits for no other node.

    Raises:
        CrossSlotError: the shard channels are in several slots.
    """
    slot = one_slot(map(to_bytes, shards), "SSUBSCRIBE")
    return next((slot_of(to_bytes(name)) for name in channels), None) if slot is None else slot


def _split(words: Args, group: int) -> list[Part]:
    """One part for each slot, with the keys in their order."""
    places: dict[int, list[int]] = defaultdict(list)
    for place in range((len(words) - 1) // group):
        places[slot_of(to_bytes(words[1 + place * group]))].append(place)
    return [
        Part(slot, (words[0], *(w for at in some for w in words[1 + at * group : 1 + (at + 1) * group])), tuple(some))
        for slot, some in places.items()
    ]


def merged(info: CommandInfo | None, parts: Sequence[Part], replies: Sequence[Reply]) -> Reply:
    """The reply to the whole command.

    Raises:
        ServerError: a part was refused. If there were others, its `applied` is "unknown": they may have been applied.
        ProtocolError: the replies do not go together.
    """
    if len(parts) == 1:
        return replies[0]
    assert info is not None
    if info.response == "one_succeeded":
        return next((reply for reply in replies if not isinstance(reply, ServerError)), replies[0])
    for reply in replies:
        if isinstance(reply, ServerError):
            reply.applied = "unknown"
            raise reply
    if info.name == "RANDOMKEY":
        found = [reply for reply in replies if reply is not None]
        return random.choice(found) if found else None  # noqa: S311 - any will do
    if info.response in _SUMS:
        return _aggregated(replies, _SUMS[info.response])
    if not info.response:
        return _joined(parts, replies)
    return replies[0]  # all_succeeded


_SUMS: Final[dict[str, Callable[[list[int]], int]]] = {
    "agg_sum": sum,
    "agg_min": min,
    "agg_max": max,
    "agg_logical_and": min,
    "agg_logical_or": max,
}


def _aggregated(replies: Sequence[Reply], total: Callable[[list[int]], int]) -> Reply:
    """Numbers as one number; lists of numbers place by place."""
    if all(isinstance(reply, list) for reply in replies):
        return [_aggregated(row, total) for row in zip(*replies, strict=True)]
    numbers = [reply for reply in replies if isinstance(reply, int)]
    if len(numbers) != len(replies):
        raise ProtocolError("the nodes answered parts of a command with what does not add up")
    return total(numbers)


def _joined(parts: Sequence[Part], replies: Sequence[Reply]) -> Reply:
    """Lists as one: in the order of the keys, or one after the other."""
    if not all(isinstance(reply, list) for reply in replies):
        raise ProtocolError("the nodes answered parts of a command with what does not go together")
    lists: list[list[Reply]] = [reply for reply in replies if isinstance(reply, list)]
    if not any(part.places for part in parts):
        return [item for each in lists for item in each]
    whole: list[Reply] = [None] * sum(map(len, lists))
    for part, each in zip(parts, lists, strict=True):
        for place, item in zip(part.places, each, strict=True):
            whole[place] = item
    return whole
