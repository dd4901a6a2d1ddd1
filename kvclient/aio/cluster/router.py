"""Sends a command to the node that has its keys, wherever that is by then; for asyncio.

Not here: what follows an error (cluster/redirects.py, two folders up), connections (nodes.py), and what commands return
(client.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

from kvclient.aio.cluster.nodes import AsyncNodes, now
from kvclient.cluster.redirects import ASKING, Route
from kvclient.errors import CallTimeoutError, CannotConnectError, KVError, ServerError
from kvclient.protocol import encode_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.aio.connection import AsyncConnection, Waiting
    from kvclient.cluster.slots import Address
    from kvclient.cluster.split import Part
    from kvclient.protocol import Reply

T = TypeVar("T")


class AsyncRouter(AsyncNodes):
    """The nodes of a cluster, and how a command gets to the right one."""

    async def routed(
        self,
        part: Part,
        convert: Callable[[Reply], T],
        deadline: float,
        *,
        safe: bool,
        again: bool = True,
        apart: bool = False,
    ) -> T:
        """Send a command to the node that has its slot, wherever that is by then.

        Args:
            part: the command.
            convert: makes the result of its reply.
            deadline: in the event loop's time.
            safe: as for step_after().
            again: as for step_after().
            apart: whether the server may take its time for it, so that nobody else may have to wait behind it.
        """
        payload = encode_command(part.words)
        route = Route(part.slot, safe=safe, again=again)
        attempt = self._attempt_apart if apart else self._attempt_at
        while True:
            seen, address = self.slots, route.address or await self.owner(part.slot, deadline)
            try:
                return convert(await attempt(address, payload, deadline, asking=route.asking))
            except KVError as error:
                step = route.after(error, address, deadline - now())
            await asyncio.sleep(step.pause)
            if step.refresh:
                await self.look_again(seen, deadline, first=step.address, last=route.failed)

    async def _attempt_at(self, address: Address, payload: bytes, deadline: float, *, asking: bool) -> Reply:
        """One attempt at one node, over the connection that all tasks share."""
        half = half_way(deadline)
        connection = await self.connection(address, half)
        waiting = _sent(connection, payload, half, asking=asking)
        return _result(await self.awaited(waiting, connection, address, deadline))

    async def _attempt_apart(self, address: Address, payload: bytes, deadline: float, *, asking: bool) -> Reply:
        """One attempt over a connection that nobody else uses meanwhile."""
        half = half_way(deadline)
        async with contextlib.AsyncExitStack() as stack:
            borrowing = self.pool(address).borrowed(half - now())
            connection = await self.in_time(stack.enter_async_context(borrowing), address, half)
            waiting = _sent(connection, payload, half, asking=asking)
            replies = await self.awaited(waiting, connection, address, deadline)
        return _result(replies)

    async def awaited(
        self, waiting: Waiting, connection: AsyncConnection, address: Address, deadline: float
    ) -> list[Reply]:
        """The replies to what a node was sent, which has half the time for it.

        A node that stands still is found out then: if another has its slots, there is no use in waiting for it.
        """
        try:
            return await waiting
        except CallTimeoutError:
            with contextlib.suppress(CannotConnectError, ServerError):  # no answer to the call that waits
                await self.refresh(self.slots, deadline, last=address)
            if address not in self.slots.primaries:
                raise
            return await connection.wait_longer(waiting, deadline)


def _sent(connection: AsyncConnection, payload: bytes, deadline: float, *, asking: bool) -> Waiting:
    """A command under way; with ASKING in the same write, so that nobody else's comes in between."""
    if asking:
        return connection.send(ASKING + payload, 2, deadline, final=False)
    return connection.send(payload, 1, deadline, final=False)


def _result(replies: list[Reply]) -> Reply:
    """The command's own reply.

    Raises:
        ServerError: it is one.
    """
    reply = replies[-1]
    if isinstance(reply, ServerError):
        raise reply
    return reply


def half_way(deadline: float) -> float:
    """The moment half-way between now and a deadline."""
    moment = now()
    return moment + (deadline - moment) / 2
