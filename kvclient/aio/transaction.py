"""Transactions for asyncio.

Not here: what EXEC's reply means (transaction.py one folder up), and what pipelines share with them (pipeline.py).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeAlias

from kvclient.aio.pipeline import AsyncPipeline
from kvclient.commands import Commands
from kvclient.commands.base import Awaited, prefixed
from kvclient.errors import ServerError, TransactionConflictError
from kvclient.observer import TRANSACTION
from kvclient.protocol import encode_command
from kvclient.serializers import In, Out, T
from kvclient.transaction import enclosed, exec_results

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from kvclient.aio.connection import AsyncConnection
    from kvclient.aio.pool import AsyncPool
    from kvclient.commands.base import Args, Future
    from kvclient.pipeline import Manner
    from kvclient.protocol import Key, Reply


class AsyncTransaction(AsyncPipeline[In, Out]):
    """Commands that run at the end of an async with block, all at once: other clients see none of them done, or all.

        async with client.transaction() as t:
            t.decr("stock")
            sold = t.incr("sold")
        print(sold.result())

    What fails, and how, is as for kvclient.Transaction.
    """

    _name = TRANSACTION

    async def _exchange(
        self, connection: AsyncConnection, parts: list[tuple[bytes, int]], futures: list[Future[object]], wait: float
    ) -> None:
        """In one write, so that no other task's command comes in between."""
        whole = enclosed(parts)
        payload, count = b"".join(part for part, _ in whole), sum(count for _, count in whole)
        replies = await connection.send(payload, count, connection.now() + wait)
        for future, reply in zip(futures, exec_results(replies, len(futures)), strict=True):
            future.settle(reply)


class AsyncNow(Commands[In, Out], Awaited[In, Out]):
    """Commands that run at once on a watching transaction's connection; they read what it watches."""

    def __init__(self, connection: AsyncConnection, manner: Manner[In, Out]) -> None:
        super().__init__(manner.serializer, manner.prefix)
        self._connection = connection
        self._timeout = manner.timeout

    async def _submit(self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None) -> T:
        del safe  # nothing is made again while keys are watched
        connection = self._connection
        deadline = connection.now() + self._timeout + (patience or 0)
        (reply,) = await connection.send(encode_command(words), 1, deadline)
        if isinstance(reply, ServerError):
            raise reply
        return convert(reply)


class AsyncWatchingTransaction(AsyncTransaction[In, Out]):
    """A transaction that runs only if the keys it watches stay as they are until then.

    Attributes:
        now: runs commands at once; what it reads of watched keys holds if the transaction runs.
    """

    def __init__(self, connection: AsyncConnection, manner: Manner[In, Out]) -> None:
        async def connected() -> AsyncConnection:
            return connection

        super().__init__(connected, dataclasses.replace(manner, retries=0))
        self.now = AsyncNow(connection, manner)


Watcher: TypeAlias = "Callable[[AsyncWatchingTransaction[In, Out]], Awaitable[T]]"
"""What reads and queues while keys are watched."""


async def watching(pool: AsyncPool, work: Watcher[In, Out, T], watch: Iterable[Key], manner: Manner[In, Out]) -> T:
    """Watch keys, let `work` read and queue, and run what it queued; all again when a key changed meanwhile.

    Raises:
        TransactionConflictError: in all of the manner's timeout somebody else was quicker each time.
    """
    keys = encode_command((b"WATCH", *(prefixed(manner.prefix, key) for key in watch)))
    timeout = manner.timeout
    unwatch = encode_command((b"UNWATCH",))
    async with pool.borrowed(timeout) as connection:
        deadline = connection.now() + timeout
        while True:
            transaction = AsyncWatchingTransaction(connection, manner)
            await _expect_ok(connection, keys, timeout)
            try:
                result = await work(transaction)
                if len(transaction):
                    await transaction.run()
                else:
                    await _expect_ok(connection, unwatch, timeout)
            except TransactionConflictError:
                if connection.now() > deadline:
                    raise
            else:
                return result


async def _expect_ok(connection: AsyncConnection, payload: bytes, timeout: float) -> None:
    (reply,) = await connection.send(payload, 1, connection.now() + timeout)
    if isinstance(reply, ServerError):
        raise reply
