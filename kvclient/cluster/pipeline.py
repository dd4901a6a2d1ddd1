"""Pipelines and transactions on a cluster: to each node its own commands, in their order.

Not here: what they share with those of one server (pipeline.py and transaction.py, one folder up).
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from kvclient.cluster.redirects import step_after
from kvclient.cluster.slots import slot_of
from kvclient.cluster.split import Part, crossing, merged, parts_of
from kvclient.commands import to
from kvclient.connection import WINDOW
from kvclient.errors import CallTimeoutError, KVError, ServerError
from kvclient.pipeline import Pipeline, chunks
from kvclient.protocol import encode_command
from kvclient.serializers import In, Out
from kvclient.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvclient.cluster.keys import CommandInfo
    from kvclient.cluster.router import Router
    from kvclient.cluster.slots import Address
    from kvclient.commands.base import Args, Future
    from kvclient.connection import Connection
    from kvclient.pipeline import Manner
    from kvclient.protocol import Reply

T = TypeVar("T")
_monotonic = time.monotonic


class _Call(NamedTuple):
    """A command of a pipeline: what it is, and which parts of it go where."""

    info: CommandInfo | None
    parts: list[Part]


class _Lost(NamedTuple):
    """What came of a command that was not answered."""

    error: KVError


class ClusterPipeline(Pipeline[In, Out]):
    """Commands that wait for the end of a with block; see Pipeline. Each node is sent its own, together."""

    def __init__(self, router: Router, manner: Manner[In, Out]) -> None:
        super().__init__(router, manner)
        self._router = router
        self._calls: list[tuple[Args, bool]] = []

    def _submit(
        self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None = None
    ) -> Future[T]:
        self._calls.append((words, safe))
        return super()._submit(words, convert, safe, patience)

    def _clear(self) -> None:
        super()._clear()
        self._calls = []

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
            self._settle(calls, futures, _monotonic() + self._timeout + patience)
        return self._results(futures)

    def _settle(self, calls: list[tuple[Args, bool]], futures: list[Future[object]], deadline: float) -> None:
        planned = [self._planned(words, deadline) for words, _ in calls]
        sent = [(part, safe) for call, (_, safe) in zip(planned, calls, strict=True) if isinstance(call, _Call)
                for part in call.parts]  # fmt: skip
        outcomes = iter(self._outcomes(sent, deadline))
        lost: KVError | None = None
        for call, future in zip(planned, futures, strict=True):
            if not isinstance(call, _Call):
                future.settle(call)
                continue
            found = [next(outcomes) for _ in call.parts]
            missing = [each.error for each in found if isinstance(each, _Lost)]
            if missing:
                lost = lost or missing[0]
                future.fail(missing[0])
                continue
            try:
                future.settle(merged(call.info, call.parts, [each for each in found if not isinstance(each, _Lost)]))
            except ServerError as refused:
                future.settle(refused)
        if lost is not None:
            raise lost

    def _planned(self, words: Args, deadline: float) -> _Call | ServerError:
        """Where a command goes; or why nowhere."""
        nodes = self._router
        info = nodes.info(words, deadline)
        try:
            return _Call(info, parts_of(info, words, nodes.slots))
        except ServerError as error:
            return error

    def replies_to(self, parts: Sequence[Part], deadline: float, *, safe: bool) -> list[Reply]:
        """The replies to commands, errors among them.

        Raises:
            KVError: a node failed before it answered.
        """
        found = self._outcomes([(part, safe) for part in parts], deadline)
        for each in found:
            if isinstance(each, _Lost):
                raise each.error
        return [each for each in found if not isinstance(each, _Lost)]

    def _outcomes(self, sent: Sequence[tuple[Part, bool]], deadline: float) -> list[Reply | _Lost]:
        """What came of each: a reply, or why there is none."""
        nodes = self._router
        by_node: dict[Address, list[int]] = defaultdict(list)
        for place, (part, _) in enumerate(sent):
            by_node[nodes.owner(part.slot, deadline)].append(place)
        rounds = [_Round(nodes, address, places, sent) for address, places in by_node.items()]
        outcomes: list[Reply | _Lost] = [None] * len(sent)
        try:
            for each in rounds:
                each.begin(deadline)
            for each in rounds:
                for place, outcome in zip(each.places, each.finish(deadline), strict=True):
                    outcomes[place] = outcome
        finally:
            for each in rounds:
                each.end()
        for place, (part, safe) in enumerate(sent):
            outcomes[place] = self._again(outcomes[place], part, deadline, safe=safe)
        return outcomes

    def _again(self, outcome: Reply | _Lost, part: Part, deadline: float, *, safe: bool) -> Reply | _Lost:
        """What comes of a command when it is sent again by itself, if that was not the end of it."""
        error = outcome.error if isinstance(outcome, _Lost) else outcome
        if not isinstance(error, KVError):
            return outcome
        left, router, again = deadline - _monotonic(), self._router, self._retries > 0
        asked = router.owner(part.slot, deadline)
        if step_after(error, 1, safe=safe, again=again, left=left, asked=asked) is None:
            return outcome
        try:
            return router.routed(part, to.anything, deadline, safe=safe, again=again)
        except ServerError as refused:
            return refused
        except KVError as failure:
            return _Lost(failure)


class _Round:
    """The commands for one node: sent, then answered, so that the nodes work at the same time."""

    def __init__(self, router: Router, address: Address, places: list[int], sent: Sequence[tuple[Part, bool]]) -> None:
        self._router, self.address, self.places = router, address, places
        self.pool = router.pool(address)
        self._payloads = [encode_command(sent[place][0].words) for place in places]
        self._connection: Connection | None = None
        self._replies: list[Reply] = []
        self._error: KVError | None = None
        self._is_sent = False

    def begin(self, deadline: float) -> None:
        """Take a connection, and send all if that is little enough not to be held up by unread replies."""
        try:
            self._connection = self.pool.take(deadline)
            if sum(map(len, self._payloads)) <= WINDOW:
                self._connection.send(b"".join(self._payloads), deadline)
                self._is_sent = True
        except KVError as error:
            self._fail(error)

    def finish(self, deadline: float) -> list[Reply | _Lost]:
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
        return [*self._replies, *([_Lost(self._error)] * missing if self._error is not None else [])]

    def _collect(self, connection: Connection, deadline: float) -> None:
        """The replies. As in Router, a node that stands still is found out half-way."""
        now = _monotonic()
        try:
            connection.collect(self._replies, len(self._payloads), now + (deadline - now) / 2)
        except CallTimeoutError:
            if not self._router.has_slots(self.address, deadline):
                raise
            connection.collect(self._replies, len(self._payloads), deadline)

    def _fail(self, error: KVError) -> None:
        if len(self._payloads) > 1 and self._connection is not None:
            error.applied = "unknown"  # of several, some may have arrived
        self._error = error
        if self._connection is not None:
            self.pool.drop(self._connection, error)
            self._connection = None

    def end(self) -> None:
        """Give the connection back; one that was left in the middle is closed."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if len(self._replies) == len(self._payloads):
            self.pool.give(connection)
        else:
            self.pool.drop(connection)


class ClusterTransaction(Transaction[In, Out]):
    """Commands that run all at once, so all their keys have to be in one slot; see Transaction."""

    def __init__(self, router: Router, manner: Manner[In, Out]) -> None:
        super().__init__(router, manner)
        self._router = router
        self._words: list[Args] = []

    def _submit(
        self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None = None
    ) -> Future[T]:
        self._words.append(words)
        return super()._submit(words, convert, safe, patience)

    def _clear(self) -> None:
        super()._clear()
        self._words = []

    def run(self) -> tuple[object, ...]:
        """Run what was collected; return all results in order. See Transaction.

        Raises:
            CrossSlotError: its keys are in several slots. Nothing was run.
            TransactionAbortedError, PipelineError, KVError: as there.
        """
        if self._words:
            self._slot = self._found_slot(_monotonic() + self._timeout)
        return super().run()

    def _found_slot(self, deadline: float) -> int:
        nodes = self._router
        found = {slot for words in self._words for slot in self._slots_of(words, deadline)}
        if len(found) > 1:
            self._abandon()
            raise crossing("the transaction")
        return found.pop() if found else nodes.slots.any_slot()

    def _slots_of(self, words: Args, deadline: float) -> set[int]:
        info = self._router.info(words, deadline)
        keys = [] if info is None else info.keys(words)
        return {slot_of(key) for key in keys}

    def _send(
        self, parts: list[tuple[bytes, int]], futures: list[Future[object]], patience: float, *, safe: bool
    ) -> None:
        """Send to the node that has the slot, wherever that is by then."""
        nodes, deadline, attempt = self._router, _monotonic() + self._timeout, 1
        while True:
            address, seen = nodes.owner(self._slot, deadline), nodes.slots
            self._lender = nodes.pool(address)
            try:
                self._attempt(parts, futures, patience)
            except KVError as error:
                left = deadline - _monotonic()
                step = step_after(error, attempt, safe=safe, again=self._retries > 0, left=left, asked=address)
                if step is None:
                    raise
            else:
                return
            # A transaction cannot follow a key that is on its way: it waits until the slot has moved.
            nodes.pause(step.pause or (0.01 if step.asking else 0.0))
            nodes.look_again(seen, deadline, first=step.address)
            attempt += 1
