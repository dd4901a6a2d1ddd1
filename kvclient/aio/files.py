"""Values as files, for tasks: read and written piece by piece. How, and what others see: files.py one folder up."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from kvclient.errors import KVError
from kvclient.files import KEPT, private_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kvclient.aio.client import AsyncClient
    from kvclient.aio.transaction import AsyncWatchingTransaction
    from kvclient.commands.options import Ttl


class AsyncValueReader:
    """A value, read piece by piece from a copy; AsyncClient.open() makes one, for an async with block."""

    def __init__(self, client: AsyncClient, key: bytes, chunk: int) -> None:
        self._client = client
        self._key = key
        self._chunk = chunk
        self._copy = private_key(key)
        self._at = self._size = 0

    async def __aenter__(self) -> Self:
        async with self._client.transaction() as transaction:
            copied = transaction.copy(self._key, self._copy)
            transaction.expire(self._copy, KEPT)
            size = transaction.strlen(self._copy)
        if not copied.result():
            raise FileNotFoundError(f"there is no key {self._key.decode('utf-8', 'backslashreplace')!r}")
        self._at, self._size = 0, size.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(KVError):  # it ends by itself
            await self._client.unlink(self._copy)

    def seek(self, offset: int) -> None:
        """Go to a byte, counted from the beginning."""
        if offset < 0:
            raise ValueError("a position before the beginning")
        self._at = offset

    async def read(self, size: int = -1) -> bytes:
        """The next bytes, as many as there are up to `size`; all that are left if it is negative.

        Raises:
            KVError: the server cannot be asked, or the copy has ended.
        """
        left = max(0, self._size - self._at)
        wanted = left if size < 0 else min(size, left)
        pieces = []
        while wanted:
            pieces.append(await self._piece(min(wanted, self._chunk)))
            wanted -= len(pieces[-1])
        return b"".join(pieces)

    async def _piece(self, size: int) -> bytes:
        async with self._client.pipeline() as pipeline:
            piece = pipeline.getrange(self._copy, self._at, self._at + size - 1)
            pipeline.expire(self._copy, KEPT)
        data = piece.result()
        if len(data) != size:
            raise KVError(f"what was being read has ended, since nothing was read for {KEPT} seconds: open it again")
        self._at += size
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read(self._chunk):
            yield piece


class AsyncValueWriter:
    """A value, written piece by piece; AsyncClient.open() makes one. It takes the key's place at the block's end."""

    def __init__(self, client: AsyncClient, key: bytes, ttl: Ttl | None, chunk: int) -> None:
        self._client = client
        self._key = key
        self._ttl = ttl
        self._chunk = chunk
        self._part = private_key(key)
        self._buffer = bytearray()
        self._sent = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            await self._discard()
            return
        try:
            await self._finish()
        except BaseException:
            await self._discard()
            raise

    async def _discard(self) -> None:
        with contextlib.suppress(KVError):  # it ends by itself
            await self._client.unlink(self._part)

    async def write(self, data: bytes | bytearray | memoryview) -> int:
        """Add to the end; sent when there is a whole piece."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), self._chunk):
            self._buffer += view[start : start + self._chunk]
            if len(self._buffer) >= self._chunk:
                await self._flush()
        return len(view)

    async def _flush(self) -> None:
        if self._buffer:
            piece = bytes(self._buffer)
            self._buffer.clear()
            try:
                async with self._client.transaction() as transaction:  # or what is lost in between would stay for ever
                    transaction.append(self._part, piece)
                    transaction.expire(self._part, KEPT)
            except BaseException:
                self._buffer[:0] = piece  # to be sent again; if it did arrive, the length will show that
                raise
            self._sent += len(piece)

    async def _finish(self) -> None:
        await self._flush()
        if not self._sent:
            await self._client.set(self._key, b"", ttl=self._ttl)
            return

        async def rename(transaction: AsyncWatchingTransaction) -> None:
            if await transaction.now.strlen(self._part) != self._sent:
                raise KVError(f"what was written has ended, since nothing more came for {KEPT} seconds", applied="no")
            transaction.persist(self._part)
            transaction.rename(self._part, self._key)
            if self._ttl is not None:
                transaction.expire(self._key, self._ttl)

        await self._client.transaction(rename, watch=[self._part])
