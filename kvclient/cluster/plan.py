"""The commands of a pipeline or a transaction: which of them go where, and what comes of them. Without input or output.

Not here: sending them (pipeline.py, and its counterpart for asyncio).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from kvclient.cluster.split import Part, is_for_all, merged, not_for_one, one_slot, parts_of
from kvclient.cluster.walk import Walk
from kvclient.errors import CrossSlotError, KVError, ServerError
from kvclient.pipeline import Batch
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kvclient.cluster.atlas import Info
    from kvclient.cluster.slots import Address, SlotMap
    from kvclient.commands.base import Args, Future
    from kvclient.protocol import Reply

T = TypeVar("T")


class Lost(NamedTuple):
    """What came of a command that was not answered."""

    error: KVError


class Sent(NamedTuple):
    """What a node is sent, and whether sending it twice is as good as once."""

    part: Part
    safe: bool


class _Call(NamedTuple):
    """A command: what it is, and which parts of it go where."""

    info: Info
    parts: list[Part]
    walk: Walk | None = None


class Plan:
    """Commands to be sent together.

    Attributes:
        sent: all their parts, in order.
    """

    def __init__(self) -> None:
        self._calls: list[_Call | ServerError] = []
        self.sent: list[Sent] = []

    def add(self, info: Info, words: Args, slots: SlotMap, *, safe: bool) -> None:
        """One more command. What goes nowhere, since its keys are in several slots, fails by itself."""
        walk: Walk | None = None
        try:
            if info is not None and info.name == "SCAN":
                walk = Walk(words, slots)
                parts = [] if walk.part is None else [walk.part]
            else:
                parts = parts_of(info, words, slots)
        except ServerError as error:
            self._calls.append(error)
            return
        self._calls.append(_Call(info, parts, walk))
        self.sent += [Sent(part, safe) for part in parts]

    def settle(self, outcomes: Iterable[Reply | Lost], futures: list[Future[object]]) -> None:
        """Have each future take what came of its command's parts.

        Raises:
            KVError: some were not answered; the futures of all others are settled.
        """
        following = iter(outcomes)
        lost: KVError | None = None
        for call, future in zip(self._calls, futures, strict=True):
            try:
                future.settle(_whole(call, following))
            except ServerError as refused:
                future.settle(refused)
            except KVError as error:
                future.fail(error)
                lost = lost or error
        if lost is not None:
            raise lost


def _whole(call: _Call | ServerError, outcomes: Iterator[Reply | Lost]) -> Reply:
    """What came of a command of which the next outcomes are the parts."""
    if isinstance(call, ServerError):
        return call
    replies = replies_among([next(outcomes) for _ in call.parts])
    if call.walk is not None:
        return call.walk.page(replies[0] if replies else None)
    return merged(call.info, call.parts, replies)


def replies_among(outcomes: Iterable[Reply | Lost]) -> list[Reply]:
    """The outcomes, if all are replies.

    Raises:
        KVError: what the first of the others failed with; its `applied` speaks of all parts together.
    """
    found = list(outcomes)
    replies = [outcome for outcome in found if not isinstance(outcome, Lost)]
    if len(replies) < len(found):
        error = next(outcome.error for outcome in found if isinstance(outcome, Lost))
        raise error if all(map(_is_undone, found)) else _in_part(error)
    return replies


def _is_undone(outcome: Reply | Lost) -> bool:
    """Whether a part certainly had no effect."""
    error = failure_of(outcome)
    return error is not None and error.applied == "no"


def _in_part(error: KVError) -> KVError:
    """The error of a command of which other parts may have been applied; a copy, as others may have failed with it."""
    found = copy.copy(error)
    found.applied = "unknown"
    found.__cause__ = error.__cause__ or error
    return found


def by_node(sent: Sequence[Sent], owner: Callable[[int], Address]) -> dict[Address, list[int]]:
    """Which places of `sent` each node gets, in order."""
    found: dict[Address, list[int]] = defaultdict(list)
    for place, (part, _) in enumerate(sent):
        found[owner(part.slot)].append(place)
    return found


def failure_of(outcome: Reply | Lost) -> KVError | None:
    """The error that an outcome is; None for a result."""
    found = outcome.error if isinstance(outcome, Lost) else outcome
    return found if isinstance(found, KVError) else None


class ClusterBatch(Batch[In, Out]):
    """Commands that wait to be sent, and are remembered as words: where they go is found out when they are."""

    _calls: list[tuple[Args, bool]]

    def _submit(
        self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None = None
    ) -> Future[T]:
        self._calls.append((words, safe))
        return super()._submit(words, convert, safe, patience)

    def _clear(self) -> None:
        super()._clear()
        self._calls = []

    def _common_slot(self, infos: Sequence[Info], slots: SlotMap) -> int:
        """The slot of all keys; without keys, any.

        Raises:
            CrossSlotError: there are several, or a command is for all nodes. All that was collected is dropped.
        """
        for info, (words, _) in zip(infos, self._calls, strict=True):
            if is_for_all(info, words, slots):
                self._abandon()
                raise not_for_one(info)
        keys = [key for info, (words, _) in zip(infos, self._calls, strict=True) if info for key in info.keys(words)]
        try:
            slot = one_slot(keys, "the transaction")
        except CrossSlotError:
            self._abandon()
            raise
        return slots.any_slot() if slot is None else slot
