"""Pipelines for asyncio: commands collected first, then sent together.

Not here: what they have in common with the blocking kind (Batch, in pipeline.py one folder up).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from kvclient.errors import CallTimeoutError, ConnectionLostError, KVError
from kvclient.pipeline import Batch, chunks
from kvclient.retry import pause_before_retry
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from kvclient.aio.connection import AsyncConnection, Waiting
    from kvclient.commands.base import Future
    from kvclient.pipeline import Manner
    from kvclient.protocol import Reply


class AsyncPipeline(Batch[In, Out]):
    """Commands that wait for the end of an async with block. Each gives a Future of what it returns on a client.

        async with client.pipeline() as p:
            old = p.get("a")
            p.incr("hits")
        print(old.result())

    It is not a transaction: other tasks' and other clients' commands may run in between. Leaving the block by an
    exception sends nothing.
    """

    def __init__(self, connected: Callable[[], Awaitable[AsyncConnection]], manner: Manner[In, Out]) -> None:
        super().__init__(manner)
        self._connected = connected

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self.run()
        else:
            self._abandon()

    async def run(self) -> tuple[object, ...]:
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
            await self._send(parts, futures, patience, safe=safe)
        return self._results(futures)

    async def _send(
        self, parts: list[tuple[bytes, int]], futures: list[Future[object]], patience: float, *, safe: bool
    ) -> None:
        """Send; again if that failed and cannot apply anything twice."""
        deadline = time.monotonic() + self._timeout
        attempt = 1
        while True:
            try:
                await self._attempt(parts, futures, patience)
            except KVError as error:
                left = deadline - time.monotonic()
                pause = pause_before_retry(error, attempt, safe=safe, retries=self._retries, left=left)
                if pause is None:
                    raise
            else:
                return
            await asyncio.sleep(pause)
            attempt += 1

    async def _attempt(self, parts: list[tuple[bytes, int]], futures: list[Future[object]], patience: float) -> None:
        try:
            connection = await self._connected()
            await self._exchange(connection, parts, futures, self._timeout + patience)
        except KVError as error:
            self._fail(futures, error)
            raise

    async def _exchange(
        self, connection: AsyncConnection, parts: list[tuple[bytes, int]], futures: list[Future[object]], wait: float
    ) -> None:
        """Send the parts and settle the futures, as many as were answered."""
        replies: list[Reply] = []
        try:
            await exchange(connection, parts, wait, replies)
        finally:
            for future, reply in zip(futures, replies, strict=False):
                future.settle(reply)


async def exchange(
    connection: AsyncConnection,
    parts: Iterable[tuple[bytes, int]],
    wait: float,
    replies: list[Reply],
    longer: Callable[[Waiting], Awaitable[object]] | None = None,
) -> None:
    """Send chunks of commands, no faster than the server takes them, and append all replies.

    Args:
        connection: whereto.
        parts: the chunks, each with its number of commands.
        wait: seconds for each chunk, from when it is sent.
        replies: on failure, it holds what came before.
        longer: awaits the replies of a chunk, perhaps for longer than that.
    """
    sent = []
    try:
        for payload, count in parts:
            deadline = connection.now() + wait
            try:
                await connection.drain(deadline)
                sent.append(connection.send(payload, count, deadline, final=longer is None))
            except (ConnectionLostError, CallTimeoutError) as error:
                if sent:
                    error.applied = "unknown"
                raise
        for waiting in sent:
            await (waiting if longer is None else longer(waiting))
    finally:
        replies += [reply for waiting in sent for reply in waiting.replies]
        for waiting in sent:
            waiting.forget()
