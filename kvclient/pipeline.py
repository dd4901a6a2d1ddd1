"""Pipelines: commands collected first, then sent together, their replies read together.

Not here: the order of sending and reading that keeps long pipelines from blocking (connection.py).
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, Self, TypeVar

from kvclient.commands import Commands, refuse_connection_commands, to
from kvclient.commands.base import Future, Queued
from kvclient.errors import (
    CommandRefusedError,
    KVError,
    PipelineAbandonedError,
    PipelineError,
    ServerError,
    TransactionConflictError,
)
from kvclient.observer import PIPELINE
from kvclient.protocol import encode_command
from kvclient.retry import pause_before_retry
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvclient.commands.base import Args
    from kvclient.connection import Connection
    from kvclient.protocol import Reply, Value
    from kvclient.serializers import Serializer

T = TypeVar("T")

CHUNK: Final = 16 * 1024  # bytes of commands that travel together
NOT_IN_A_NAMESPACE: Final = (
    "execute() takes the words as they are, and does not know which of them are keys: call it outside of the namespace"
)

_monotonic = time.monotonic


class Lender(Protocol):
    """Where a pipeline has its connection from, such as a Pool."""

    def take(self, deadline: float, /) -> Connection:
        """A connection, by `deadline` (monotonic seconds)."""
        raise NotImplementedError

    def give(self, connection: Connection, /) -> None:
        """Take back one whose replies have all been read."""

    def drop(self, connection: Connection, error: BaseException | None, /) -> None:
        """Close one that an error has left in an unknown state."""

    def pause(self, seconds: float, /) -> None:
        """Do nothing for so long, or until there are no connections any more."""


class Source(Lender, Protocol):
    """Where a client has its connections from: a Pool, or the nodes of a cluster."""

    def close(self) -> None:
        """Close all of them, each one in use as soon as it is given back."""


@dataclass(frozen=True)
class Manner(Generic[In, Out]):
    """How a batch of commands is built and sent.

    Attributes:
        serializer: for whole values.
        prefix: of all keys; b"" outside of a namespace.
        timeout: seconds to wait for each chunk.
        retries: how often to try again, where that is safe.
        raise_errors: whether refused commands make the whole raise.
        told: what to send within, for an observer; takes a name and how many commands it is.
    """

    serializer: Serializer[In, Out]
    prefix: bytes
    timeout: float
    retries: int
    raise_errors: bool
    told: Callable[[str, int], contextlib.AbstractContextManager[None]]


class Batch(Commands[In, Out], Queued[In, Out]):
    """Commands that wait to be sent together: what pipelines and transactions, threaded and async, have in common."""

    _payloads: list[bytes]
    _futures: list[Future[object]]
    _patience: float
    _safe: bool

    def __init__(self, manner: Manner[In, Out]) -> None:
        super().__init__(manner.serializer, manner.prefix)
        self._timeout = manner.timeout
        self._retries = manner.retries
        self._raise_errors = manner.raise_errors
        self._told = manner.told
        self._clear()

    def _submit(
        self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None = None
    ) -> Future[T]:
        if patience is not None:
            self._patience += patience
        self._payloads.append(encode_command(words))
        future = Future(convert)
        self._futures.append(future)  # type: ignore[arg-type]  # Future[T] is only written to by us
        self._safe = self._safe and safe
        return future

    def __len__(self) -> int:
        """How many commands wait to be sent."""
        return len(self._payloads)

    def __bool__(self) -> bool:
        return True

    def execute(self, *args: Value) -> Future[Reply]:
        """Add any command, word by word; see Client.execute().

        Raises:
            CommandRefusedError: it would change a connection that is shared.
        """
        refuse_connection_commands(args)
        if self._prefix:
            raise CommandRefusedError(NOT_IN_A_NAMESPACE)
        return self._submit(args, to.anything, safe=False)

    _name = PIPELINE

    def _clear(self) -> None:
        self._payloads, self._futures, self._safe, self._patience = [], [], True, 0.0

    def _abandon(self) -> None:
        """The with block was left by an exception, so nothing is sent."""
        error = PipelineAbandonedError("nothing of this pipeline was sent: its with block raised an exception")
        for future in self._futures:
            future.fail(error)
        self._clear()

    @staticmethod
    def _fail(futures: list[Future[object]], error: KVError) -> None:
        """Have those raise that the server has not answered."""
        for future in futures:
            if not future.answered:
                future.fail(error)

    def _results(self, futures: list[Future[object]]) -> tuple[object, ...]:
        failed = [(place, error) for place, future in enumerate(futures) if (error := future.error()) is not None]
        if not failed:
            return tuple([future.result() for future in futures])
        results = tuple(future.error() or future.result() for future in futures)
        if self._raise_errors:
            place, first = failed[0]
            raise PipelineError(
                f"{len(failed)} of {len(futures)} commands failed, the first being number {place + 1}: {first}; "
                "see .results for every command's result",
                results,
            ) from first
        return results


class Pipeline(Batch[In, Out]):
    """Commands that wait for the end of a with block. Each gives a Future of what it returns on a Client.

        with client.pipeline() as p:
            old = p.get("a")
            p.incr("hits")
        print(old.result())

    It belongs to one thread. It is not a transaction: other clients' commands may run in between. Leaving the
    block by an exception sends nothing.
    """

    def __init__(self, lender: Lender, manner: Manner[In, Out]) -> None:
        super().__init__(manner)
        self._lender = lender

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.run()
        else:
            self._abandon()

    def run(self) -> tuple[object, ...]:
        """Send what was collected; return all results in order. The pipeline is then empty and can go on.

        Raises:
            PipelineError: the server refused some commands (unless raise_errors is False; their places in the
                tuple then hold the errors).
            KVError: the connection failed; futures whose replies had come have their results.
        """
        payloads, futures, safe, patience = self._payloads, self._futures, self._safe, self._patience
        self._clear()
        if not payloads:
            return ()
        parts = list(chunks(payloads))
        with self._told(self._name, len(futures)):
            self._send(parts, futures, patience, safe=safe)
        return self._results(futures)

    def _send(
        self, parts: list[tuple[bytes, int]], futures: list[Future[object]], patience: float, *, safe: bool
    ) -> None:
        """Send; again if that failed and cannot apply anything twice."""
        deadline = _monotonic() + self._timeout
        attempt = 1
        while True:
            try:
                self._attempt(parts, futures, patience)
            except KVError as error:
                left = deadline - _monotonic()
                pause = pause_before_retry(error, attempt, safe=safe, retries=self._retries, left=left)
                if pause is None:
                    raise
            else:
                return
            self._lender.pause(pause)
            attempt += 1

    def _attempt(self, chunks: list[tuple[bytes, int]], futures: list[Future[object]], patience: float) -> None:
        try:
            connection = self._lender.take(_monotonic() + self._timeout)
            try:
                self._exchange(connection, chunks, futures, self._timeout + patience)
            except (ServerError, TransactionConflictError):  # the whole was refused; the connection is fine
                self._lender.give(connection)
                raise
            except BaseException as error:
                self._lender.drop(connection, error)
                raise
            self._lender.give(connection)
        except KVError as error:
            self._fail(futures, error)
            raise

    def _exchange(
        self, connection: Connection, chunks: list[tuple[bytes, int]], futures: list[Future[object]], timeout: float
    ) -> None:
        """Send the chunks and settle the futures, as many as were answered."""
        replies: list[Reply] = []
        try:
            connection.exchange(chunks, timeout, replies)
        finally:
            for future, reply in zip(futures, replies, strict=False):
                future.settle(reply)


def chunks(payloads: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """Join commands into chunks of at most CHUNK bytes, except that a longer command is a chunk by itself."""
    start = size = 0
    for place, payload in enumerate(payloads):
        if size and size + len(payload) > CHUNK:
            yield b"".join(payloads[start:place]), place - start
            start, size = place, 0
        size += len(payload)
    yield b"".join(payloads[start:]), len(payloads) - start
