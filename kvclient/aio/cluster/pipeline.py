"""Pipelines and transactions on a cluster for asyncio: to each node its own commands, in their order.

Not here: which commands go where, and what comes of them (cluster/plan.py, two folders up); what is shared with those
of one server (aio/pipeline.py, aio/transaction.py).
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from kvclient.aio.cluster.nodes import now
from kvclient.aio.cluster.router import half_way
from kvclient.aio.pipeline import AsyncPipeline, exchange
from kvclient.aio.transaction import AsyncTransaction
from kvclient.cluster.plan import ClusterBatch, Lost, Plan, by_node, failure_of
from kvclient.cluster.redirects import Route, step_after
from kvclient.commands import to
from kvclient.errors import KVError, ServerError
from kvclient.pipeline import chunks
from kvclient.protocol import encode_command
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvclient.aio.cluster.router import AsyncRouter
    from kvclient.aio.connection import AsyncConnection
    from kvclient.cluster.plan import Sent
    from kvclient.cluster.slots import Address
    from kvclient.commands.base import Future
    from kvclient.pipeline import Manner
    from kvclient.protocol import Reply


class AsyncClusterPipeline(ClusterBatch[In, Out], AsyncPipeline[In, Out]):
    """Commands that wait for the end of an async with block; see AsyncPipeline. Each node is sent its own, together."""

    def __init__(self, router: AsyncRouter, manner: Manner[In, Out]) -> None:
        super().__init__(_nowhere, manner)
        self._router = router

    async def run(self) -> tuple[object, ...]:
        """Send what was collected; return all results in order. See AsyncPipeline.run().

        Raises:
            PipelineError: as there; also for a command whose keys are in several slots.
            KVError: a node failed; futures whose replies had come have their results.
        """
        router, calls, futures, patience = self._router, self._calls, self._futures, self._patience
        self._clear()
        if not calls:
            return ()
        with self._told(self._name, len(futures)):
            deadline, plan = now() + self._timeout + patience, Plan()
            for words, safe in calls:
                plan.add(await router.info(words, deadline), words, router.slots, safe=safe)
            plan.settle(await outcomes(router, plan.sent, deadline, again=self._retries > 0), futures)
        return self._results(futures)


async def _nowhere() -> AsyncConnection:
    """There is no connection for all that was collected, before it is known where it goes."""
    raise NotImplementedError


async def outcomes(
    router: AsyncRouter, sent: Sequence[Sent], deadline: float, *, again: bool, apart: bool = False
) -> list[Reply | Lost]:
    """What came of each: a reply, errors among them, or why there is none. Parts with one slot keep their order.

    There is one task for each node, which ends before this returns.
    """
    found: list[Reply | Lost] = [None] * len(sent)
    rounds = [
        _Round(router, address, places, sent, found, deadline, again=again, apart=apart)
        for address, places in by_node(sent, router.known_owner).items()
    ]
    if len(rounds) == 1:
        await rounds[0].run()
        return found
    async with asyncio.TaskGroup() as group:
        for each in rounds:
            group.create_task(each.run())
    return found


class _Round:
    """The commands for one node: sent together, and one by one again where that was not the end of it."""

    def __init__(
        self,
        router: AsyncRouter,
        address: Address,
        places: list[int],
        sent: Sequence[Sent],
        found: list[Reply | Lost],
        deadline: float,
        *,
        again: bool,
        apart: bool,
    ) -> None:
        self._router, self._address, self._places = router, address, places
        self._sent, self._found, self._deadline = sent, found, deadline
        self._tries_again, self._is_apart = again, apart

    async def run(self) -> None:
        """Note what comes of each."""
        if not self._is_apart:
            await self._together()
        for place in self._places:
            if self._is_apart or self._is_worth_another(place):
                self._found[place] = await self._alone(self._sent[place])

    async def _together(self) -> None:
        router, address, half = self._router, self._address, half_way(self._deadline)
        parts = list(chunks([encode_command(self._sent[place].part.words) for place in self._places]))
        replies: list[Reply] = []
        lost: Lost | None = None
        try:
            connection = await router.connection(address, half)
            awaited = functools.partial(router.awaited, connection=connection, address=address, deadline=self._deadline)
            await exchange(connection, parts, half - now(), replies, awaited)
        except KVError as error:
            lost = Lost(error)
        for place, outcome in enumerate(replies):
            self._found[self._places[place]] = outcome
        for place in self._places[len(replies) :]:
            assert lost is not None
            self._found[place] = lost

    def _is_worth_another(self, place: int) -> bool:
        error, (part, safe) = failure_of(self._found[place]), self._sent[place]
        if error is None:
            return False
        asked, left = self._router.known_owner(part.slot), self._deadline - now()
        return step_after(error, 1, safe=safe, again=self._tries_again, left=left, asked=asked) is not None

    async def _alone(self, sent: Sent) -> Reply | Lost:
        try:
            return await self._router.routed(
                sent.part,
                to.anything,
                self._deadline,
                safe=sent.safe,
                again=self._tries_again,
                apart=self._is_apart,
            )
        except ServerError as refused:
            return refused
        except KVError as failure:
            return Lost(failure)


class AsyncClusterTransaction(ClusterBatch[In, Out], AsyncTransaction[In, Out]):
    """Commands that run all at once, so all their keys have to be in one slot; see AsyncTransaction."""

    def __init__(self, router: AsyncRouter, manner: Manner[In, Out]) -> None:
        super().__init__(_nowhere, manner)
        self._router = router

    async def run(self) -> tuple[object, ...]:
        """Run what was collected; return all results in order. See AsyncTransaction.

        Raises:
            CrossSlotError: its keys are in several slots. Nothing was run.
            TransactionAbortedError, PipelineError, KVError: as there.
        """
        if self._calls:
            deadline = now() + self._timeout
            infos = [await self._router.info(words, deadline) for words, _ in self._calls]
            self._slot = self._common_slot(infos, self._router.slots)
        return await super().run()

    async def _send(
        self, parts: list[tuple[bytes, int]], futures: list[Future[object]], patience: float, *, safe: bool
    ) -> None:
        """Send to the node that has the slot, wherever that is by then."""
        router, deadline = self._router, now() + self._timeout
        route = Route(self._slot, safe=safe, again=self._retries > 0)
        while True:
            address, seen = await router.owner(self._slot, deadline), router.slots
            self._connected = functools.partial(router.connection, address, deadline)
            try:
                return await self._attempt(parts, futures, patience)
            except KVError as error:
                step = route.after_together(error, address, deadline - now())
            await asyncio.sleep(step.pause)
            await router.look_again(seen, deadline, first=step.address, last=route.failed)
