"""Transactions for asyncio.

Not here: what EXEC's reply means (transaction.py one folder up), and what pipelines share with them (pipeline.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kvclient.aio.pipeline import AsyncPipeline
from kvclient.commands import Commands
from kvclient.commands.base import Awaited
from kvclient.errors import ServerError, TransactionConflictError
from kvclient.protocol import encode_command
from kvclient.transaction import enclosed, exec_results

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from kvclient.aio.connection import AsyncConnection
    from kvclient.aio.pool import AsyncPool
    from kvclient.commands.base import Args, Command, Future, P, S
    from kvclient.protocol import Key

T = TypeVar("T")


class AsyncTransaction(AsyncPipeline):
    """Commands that run at the end of an async with block, all at once: other clients see none of them done, or all.

        async with client.transaction() as t:
            t.decr("stock")
            sold = t.incr("sold")
        print(sold.result())

    What fails, and how, is as for kvclient.Transaction.
    """

    async def _exchange(
        self, connection: AsyncConnection, parts: list[tuple[bytes, int]], futures: list[Future[object]], wait: float
    ) -> None:
        """In one write, so that no other task's command comes in between."""
        whole = enclosed(parts)
        payload, count = b"".join(part for part, _ in whole), sum(count for _, count in whole)
        replies = await connection.send(payload, count, connection.now() + wait)
        for future, reply in zip(futures, exec_results(replies, len(futures)), strict=True):
            future.settle(reply)


class AsyncNow(Commands, Awaited):
    """Commands that run at once on a watching transaction's connection; they read what it watches."""

    def __init__(self, connection: AsyncConnection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    @classmethod
    def _bind(cls, command: Command[S, P, T]) -> Callable[..., Coroutine[object, object, T]]:
        build, convert, patience = command.build, command.convert, command.patience

        async def method(self: AsyncNow, *args: object, **kwargs: object) -> T:
            words: Args = build(self, *args, **kwargs)  # type: ignore[arg-type]
            wait = self._timeout + (patience(words) if patience is not None else 0)
            connection = self._connection
            (reply,) = await connection.send(encode_command(words), 1, connection.now() + wait)
            if isinstance(reply, ServerError):
                raise reply
            return convert(reply)

        return method


class AsyncWatchingTransaction(AsyncTransaction):
    """A transaction that runs only if the keys it watches stay as they are until then.

    Attributes:
        now: runs commands at once; what it reads of watched keys holds if the transaction runs.
    """

    def __init__(self, connection: AsyncConnection, timeout: float) -> None:
        async def connected() -> AsyncConnection:
            return connection

        super().__init__(connected, timeout, raise_errors=True)
        self._safe = False
        self.now = AsyncNow(connection, timeout)


async def watching(
    pool: AsyncPool, work: Callable[[AsyncWatchingTransaction], Awaitable[T]], watch: Iterable[Key], timeout: float
) -> T:
    """Watch keys, let `work` read and queue, and run what it queued; all again when a key changed meanwhile.

    Raises:
        TransactionConflictError: in `timeout` seconds somebody else was quicker each time.
    """
    keys = encode_command((b"WATCH", *watch))
    unwatch = encode_command((b"UNWATCH",))
    async with pool.borrowed(timeout) as connection:
        deadline = connection.now() + timeout
        while True:
            transaction = AsyncWatchingTransaction(connection, timeout)
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
