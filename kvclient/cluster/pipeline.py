"""Pipelines and transactions on a cluster: to each node its own commands, in their order.

Not here: what they share with those of one server (pipeline.py and transaction.py, one folder up).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvclient.cluster.plan import ClusterBatch, Lost, Plan, Sent, by_node, failure_of
from kvclient.cluster.redirects import Route, step_after
from kvclient.cluster.router import half_way
from kvclient.commands import to
from kvclient.connection import WINDOW
from kvclient.errors import CallTimeoutError, KVError, ServerError
from kvclient.pipeline import Pipeline, chunks
from kvclient.protocol import encode_command
from kvclient.serializers import In, Out
from kvclient.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvclient.cluster.router import Router
    from kvclient.cluster.slots import Address
    from kvclient.commands.base import Future
    from kvclient.connection import Connection
    from kvclient.pipeline import Manner
    from kvclient.protocol import Reply

_monotonic = time.monotonic


class ClusterPipeline(ClusterBatch[In, Out], Pipeline[In, Out]):
    """Commands that wait for the end of a with block; see Pipeline. Each node is sent its own, together."""

    def __init__(self, router: Router, manner: Manner[In, Out]) -> None:
        super().__init__(router, manner)
        self._router = router

    def run(self) -> tuple[object, ...]:
        """Send what was collected; return all results in order. See Pipeline.run().

        Raises:
            PipelineError: as there; also for a command whose keys are in several slots.
            KVError: a node failed; futures whose replies had come have their results.
        """
        calls, futures, patience = self._calls, self._futures, self._patience
        self._clear()
        if not calls:
            return ()
        with self._told(self._name, len(futures)):
            deadline, plan = _monotonic() + self._timeout + patience, Plan()
            for words, safe in calls:
                plan.add(self._router.info(words, deadline), words, self._router.slots, safe=safe)
            plan.settle(outcomes(self._router, plan.sent, deadline, again=self._retries > 0), futures)
        return self._results(futures)


def outcomes(router: Router, sent: Sequence[Sent], deadline: float, *, again: bool) -> list[Reply | Lost]:
    """What came of each: a reply, errors among them, or why there is none. Parts with one slot keep their order."""
    places_of = by_node(sent, lambda slot: router.owner(slot, deadline))
    # Connections are taken in one order by everybody: two calls that each have what the other waits for would go on
    # waiting.
    rounds = [_Round(router, address, places, sent) for address, places in sorted(places_of.items())]
    found: list[Reply | Lost] = [None] * len(sent)
    try:
        for each in rounds:
            each.begin(deadline)
        for each in rounds:
            for place, outcome in zip(each.places, each.finish(deadline), strict=True):
                found[place] = outcome
    finally:
        for each in rounds:
            each.end()
    return [_again(router, outcome, each, deadline, again=again) for outcome, each in zip(found, sent, strict=True)]


def _again(router: Router, outcome: Reply | Lost, sent: Sent, deadline: float, *, again: bool) -> Reply | Lost:
    """What comes of a command when it is sent again by itself, if that was not the end of it."""
    error = failure_of(outcome)
    if error is None:
        return outcome
    asked, left = router.owner(sent.part.slot, deadline), deadline - _monotonic()
    if step_after(error, 1, safe=sent.safe, again=again, left=left, asked=asked) is None:
        return outcome
    try:
        return router.routed(sent.part, to.anything, deadline, safe=sent.safe, again=again)
    except ServerError as refused:
        return refused
    except KVError as failure:
        return Lost(failure)


class _Round:
    """The commands for one node: sent, then answered, so that the nodes work at the same time."""

    def __init__(self, router: Router, address: Address, places: list[int], sent: Sequence[Sent]) -> None:
        self._router, self._address, self.places = router, address, places
        self._pool = router.pool(address)
        self._payloads = [encode_command(sent[place].part.words) for place in places]
        self._connection: Connection | None = None
        self._replies: list[Reply] = []
        self._error: KVError | None = None
        self._is_sent = False

    def begin(self, deadline: float) -> None:
        """Take a connection, and send all if that is little enough not to be held up by unread replies."""
        try:
            self._connection = self._router.taken(self._pool, half_way(deadline))
            if sum(map(len, self._payloads)) <= WINDOW:
                self._connection.send(b"".join(self._payloads), deadline)
                self._is_sent = True
        except KVError as error:
            self._fail(error)

    def finish(self, deadline: float) -> list[Reply | Lost]:
        """What came of each command."""
        if self._connection is not None and self._error is None:
            try:
                left = max(0.001, deadline - _monotonic())
                if self._is_sent:
                    self._collect(self._connection, deadline)
                else:
                    self._connection.exchange(list(chunks(self._payloads)), left, self._replies)
            except KVError as error:
                self._fail(error)
        missing = len(self.places) - len(self._replies)
        return [*self._replies, *([Lost(self._error)] * missing if self._error is not None else [])]

    def _collect(self, connection: Connection, deadline: float) -> None:
        """The replies. As in Router, a node that stands still is found out half-way."""
        try:
            connection.collect(self._replies, len(self._payloads), half_way(deadline))
        except CallTimeoutError:
            if not self._router.has_slots(self._address, deadline):
                raise
            connection.collect(self._replies, len(self._payloads), deadline)

    def _fail(self, error: KVError) -> None:
        if len(self._payloads) > 1 and self._connection is not None:
            error.applied = "unknown"  # of several, some may have arrived
        self._error = error
        if self._connection is not None:
            self._pool.drop(self._connection, error)
            self._connection = None

    def end(self) -> None:
        """Give the connection back; one that was left in the middle is closed."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if len(self._replies) == len(self._payloads):
            self._pool.give(connection)
        else:
            self._pool.drop(connection)


class ClusterTransaction(ClusterBatch[In, Out], Transaction[In, Out]):
    """Commands that run all at once, so all their keys have to be in one slot; see Transaction."""

    def __init__(self, router: Router, manner: Manner[In, Out]) -> None:
        super().__init__(router, manner)
        self._router = router

    def run(self) -> tuple[object, ...]:
        """Run what was collected; return all results in order. See Transaction.

        Raises:
            CrossSlotError: its keys are in several slots. Nothing was run.
            TransactionAbortedError, PipelineError, KVError: as there.
        """
        if self._calls:
            deadline = _monotonic() + self._timeout
            infos = [self._router.info(words, deadline) for words, _ in self._calls]
            self._slot = self._common_slot(infos, self._router.slots)
        return super().run()

    def _send(
        self, parts: list[tuple[bytes, int]], futures: list[Future[object]], patience: float, *, safe: bool
    ) -> None:
        """Send to the node that has the slot, wherever that is by then."""
        nodes, deadline = self._router, _monotonic() + self._timeout
        route = Route(self._slot, safe=safe, again=self._retries > 0)
        while True:
            address, seen = nodes.owner(self._slot, deadline), nodes.slots
            self._lender = nodes.pool(address)
            try:
                return self._attempt(parts, futures, patience)
            except KVError as error:
                step = route.after_together(error, address, deadline - _monotonic())
            nodes.pause(step.pause)
            nodes.look_again(seen, deadline, first=step.address, last=route.failed)
