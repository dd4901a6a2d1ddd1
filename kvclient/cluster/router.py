"""Sends a command to the node that has its keys, wherever that is by then.

Not here: what follows an error (redirects.py), connections (nodes.py), what commands return (client.py).
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, TypeVar

from kvclient.cluster.nodes import Nodes
from kvclient.cluster.redirects import ASKING, Route
from kvclient.errors import (
    CallTimeoutError,
    CannotConnectError,
    KVError,
    ServerError,
    UnpackError,
)
from kvclient.protocol import encode_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.cluster.slots import Address, SlotMap
    from kvclient.cluster.split import Part
    from kvclient.protocol import Reply

T = TypeVar("T")
_monotonic = time.monotonic


class Router(Nodes):
    """The nodes of a cluster, and how a command gets to the right one."""

    def routed(
        self, part: Part, convert: Callable[[Reply], T], deadline: float, *, safe: bool, again: bool = True
    ) -> T:
        """Send a command to the node that has its slot, wherever that is by then."""
        payload, seen = encode_command(part.words), self.slots
        address = seen.owner(part.slot) or self.owner(part.slot, deadline)
        try:  # most calls succeed
            return self._attempt_at(address, payload, convert, deadline, asking=False)
        except KVError as error:
            failure = error
        return self._again(failure, address, seen, payload, convert, deadline, Route(part.slot, safe=safe, again=again))

    def _again(
        self, error: KVError, address: Address, seen: SlotMap, payload: bytes, convert: Callable[[Reply], T],
        deadline: float, route: Route,
    ) -> T:  # fmt: skip
        """Go on after an error, as the route says; otherwise raise it."""
        while True:
            step = route.after(error, address, deadline - _monotonic())
            self.pause(step.pause)
            if step.refresh:
                self.look_again(seen, deadline, first=step.address, last=route.failed)
            seen, address = self.slots, route.address or self.owner(route.slot, deadline)
            try:
                return self._attempt_at(address, payload, convert, deadline, asking=route.asking)
            except KVError as failure:
                error = failure

    def look_again(
        self, seen: SlotMap, deadline: float, *, first: Address | None = None, last: Address | None = None
    ) -> None:
        """Ask who has what now; if nobody says, go on with what was known, and find out at the next attempt."""
        try:
            self.refresh(seen, deadline, first=first, last=last)
        except CannotConnectError:
            if not self.slots.primaries:
                raise

    def _attempt_at(
        self, address: Address, payload: bytes, convert: Callable[[Reply], T], deadline: float, *, asking: bool
    ) -> T:
        """One attempt at one node.

        A node that stands still is found out half-way to the deadline: if another has its slots by then, there is no
        use in waiting for it.
        """
        pool, half = self.pool(address), half_way(deadline)
        connection = self.taken(pool, half)
        try:
            if asking:
                connection.call(ASKING, half)
            try:
                reply = connection.call(payload, half)
            except CallTimeoutError as error:
                if error.applied == "no" or not self.has_slots(address, deadline):
                    raise
                reply = connection.wait_longer(deadline)
            if isinstance(reply, ServerError):
                raise reply
            result = convert(reply)
        except (ServerError, UnpackError):  # the reply was whole
            pool.give(connection)
            raise
        except BaseException as error:
            pool.drop(connection, error)
            raise
        pool.give(connection)
        return result

    def has_slots(self, address: Address, deadline: float) -> bool:
        """Whether the others say that a node has slots; if they say nothing, whether it had.

        Whatever they answer is no answer to the call that waits for that node, so it is not raised here.
        """
        with contextlib.suppress(CannotConnectError, ServerError):
            self.refresh(self.slots, deadline, last=address)
        return address in self.slots.primaries


def half_way(deadline: float) -> float:
    """The moment half-way between now and a deadline."""
    now = _monotonic()
    return now + (deadline - now) / 2
