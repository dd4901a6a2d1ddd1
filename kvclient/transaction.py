"""Transactions: commands that run together, with nobody else's in between, or not at all.

Not here: what a pipeline shares with them (pipeline.py), and how commands become bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Generic

from kvclient.commands import Commands
from kvclient.commands.base import Direct, prefixed
from kvclient.errors import KVError, ProtocolError, ServerError, TransactionConflictError
from kvclient.observer import TRANSACTION
from kvclient.pipeline import Pipeline
from kvclient.protocol import encode_command
from kvclient.serializers import In, Out, T

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kvclient.commands.base import Args, Future
    from kvclient.connection import Connection
    from kvclient.pipeline import Lender, Manner
    from kvclient.protocol import Key, Reply


_MULTI = encode_command((b"MULTI",))
_EXEC = encode_command((b"EXEC",))
_UNWATCH = encode_command((b"UNWATCH",))

_monotonic = time.monotonic


class Transaction(Pipeline[In, Out]):
    """Commands that run at the end of a with block, all at once: other clients see none of them done, or all.

        with client.transaction() as t:
            t.decr("stock")
            sold = t.incr("sold")
        print(sold.result())

    A command that fails while it runs, such as incr() of a text, does not undo the others: its future raises, and so
    does the block (PipelineError). A command that the server refuses beforehand keeps all of them from running
    (TransactionAbortedError). It belongs to one thread. Leaving the block by an exception sends nothing.
    """

    _name = TRANSACTION

    def _exchange(
        self, connection: Connection, chunks: list[tuple[bytes, int]], futures: list[Future[object]], timeout: float
    ) -> None:
        replies: list[Reply] = []
        connection.exchange(enclosed(chunks), timeout, replies)
        for future, reply in zip(futures, exec_results(replies, len(futures)), strict=True):
            future.settle(reply)


class Now(Commands[In, Out], Direct[In, Out]):
    """Commands that run at once on a watching transaction's connection; they read what it watches."""

    def __init__(self, connection: Connection, manner: Manner[In, Out]) -> None:
        super().__init__(manner.serializer, manner.prefix)
        self._connection = connection
        self._timeout = manner.timeout

    def _submit(self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None) -> T:
        del safe  # nothing is made again while keys are watched
        reply = self._connection.call(encode_command(words), _monotonic() + self._timeout + (patience or 0))
        if isinstance(reply, ServerError):
            raise reply
        return convert(reply)


class WatchingTransaction(Transaction[In, Out]):
    """A transaction that runs only if the keys it watches stay as they are until then.

    Attributes:
        now: runs commands at once; what it reads of watched keys holds if the transaction runs.
    """

    def __init__(self, connection: Connection, manner: Manner[In, Out]) -> None:
        super().__init__(_Kept(connection), dataclasses.replace(manner, retries=0))
        self.now = Now(connection, manner)


class _Kept:
    """The connection that watches, for all that a transaction sends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(self, _deadline: float, /) -> Connection:
        """The one there is."""
        return self._connection

    def give(self, connection: Connection, /) -> None:
        """Keep it, for another attempt."""

    def drop(self, connection: Connection, _error: BaseException | None = None, /) -> None:
        """Close it; who keeps it will find that."""
        connection.close()

    def pause(self, seconds: float, /) -> None:
        """Nobody waits here: what fails on this connection has failed."""


def watching(
    pool: Lender, work: Callable[[WatchingTransaction[In, Out]], T], watch: Iterable[Key], manner: Manner[In, Out]
) -> T:
    """Watch keys, let `work` read and queue, and run what it queued; all again when a key changed meanwhile.

    Args:
        pool: where to take a connection; it is kept from the first WATCH to the last EXEC.
        work: may be called several times. What it returns, the last time, is the result.
        watch: the keys.
        manner: its timeout is for all attempts together, and for each reply.

    Raises:
        TransactionConflictError: in all that time somebody else was quicker.
    """
    keys = encode_command((b"WATCH", *(prefixed(manner.prefix, key) for key in watch)))
    timeout = manner.timeout
    deadline = _monotonic() + timeout
    connection = pool.take(deadline)
    try:
        while True:
            transaction = WatchingTransaction(connection, manner)
            _expect_ok(connection.call(keys, _monotonic() + timeout))
            try:
                result = work(transaction)
                if len(transaction):
                    transaction.run()
                else:
                    _expect_ok(connection.call(_UNWATCH, _monotonic() + timeout))
                break
            except TransactionConflictError:
                if _monotonic() > deadline:
                    raise
    except BaseException as error:
        pool.drop(connection, error)  # it may still watch
        raise
    pool.give(connection)
    return result


class Watch(Generic[In, Out]):
    """Keys that are watched from now on, for who goes on step by step; otherwise see Client.transaction().

    It has a connection for itself until end(). After an error, and after the transaction, it is of no more use.
    """

    def __init__(self, lender: Lender, manner: Manner[In, Out], keys: Iterable[Key]) -> None:
        self._lender = lender
        self._manner = manner
        self._connection = lender.take(_monotonic() + manner.timeout)
        self._is_fine = True
        try:
            self.add(keys)
        except BaseException:
            self.end()
            raise

    @property
    def is_fine(self) -> bool:
        """Whether all that was to be watched is."""
        return self._is_fine

    def add(self, keys: Iterable[Key]) -> None:
        """Watch these, too.

        Raises:
            ServerError, KVError: they are not watched, nor are the others any more.
        """
        self._ask(encode_command((b"WATCH", *(prefixed(self._manner.prefix, key) for key in keys))))

    def transaction(self) -> WatchingTransaction[In, Out]:
        """What runs only if nobody has changed the keys."""
        return WatchingTransaction(self._connection, self._manner)

    def end(self) -> None:
        """Watch nothing, and give the connection back."""
        if self._is_fine:
            with contextlib.suppress(KVError):
                self._ask(_UNWATCH)
        if self._is_fine and not self._connection.closed:
            self._lender.give(self._connection)
        else:
            self._lender.drop(self._connection, None)

    def _ask(self, payload: bytes) -> None:
        self._is_fine = False
        _expect_ok(self._connection.call(payload, _monotonic() + self._manner.timeout))
        self._is_fine = True


def enclosed(chunks: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """The chunks between MULTI and EXEC; in one write if they are one chunk."""
    if len(chunks) > 1:
        return [(_MULTI, 1), *chunks, (_EXEC, 1)]
    payload, count = chunks[0]
    return [(_MULTI + payload + _EXEC, count + 2)]


def exec_results(replies: list[Reply], count: int) -> list[Reply]:
    """EXEC's replies.

    Raises:
        TransactionConflictError: a watched key was changed.
        ServerError: the server refused a command, and so the whole.
    """
    outcome = replies[-1]
    if outcome is None:
        raise TransactionConflictError("a watched key was changed by somebody else, so nothing of the transaction ran")
    if isinstance(outcome, ServerError):
        refused = next((reply for reply in replies[:-1] if isinstance(reply, ServerError)), None)
        raise outcome from refused
    if not isinstance(outcome, list) or len(outcome) != count:
        raise ProtocolError("EXEC was not answered with a reply for each command")
    return outcome


def _expect_ok(reply: Reply) -> None:
    if isinstance(reply, ServerError):
        raise reply
