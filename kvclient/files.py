"""Values as files: read and written piece by piece, so that memory holds one piece of a large value.

Reading is from a copy, which the server makes at once and which ends by itself: a value that is set meanwhile is not
mixed up with the one that is read. Writing is to a key of its own, which takes the value's place when all is written:
others see the old value, or the whole new one.

Not here: what reading and writing are for tasks (aio/files.py).
"""

from __future__ import annotations

import contextlib
import io
import secrets
from typing import TYPE_CHECKING, Final, Self

from kvclient.cluster.slots import beside
from kvclient.errors import KVError

if TYPE_CHECKING:
    from kvclient.client import Client
    from kvclient.commands.options import Ttl
    from kvclient.transaction import WatchingTransaction

CHUNK: Final = 1024 * 1024  # bytes asked for or sent at once
KEPT: Final = 600  # seconds for which a copy, or what is being written, is kept after it was last touched


def check_mode(mode: str) -> None:
    """Raise ValueError for a way to open files that values do not have."""
    if mode not in {"rb", "wb"}:
        raise ValueError(f"mode {mode!r}: a value is opened 'rb', to read it, or 'wb', to write it anew")


def private_key(key: bytes) -> bytes:
    """A key beside another one, which nobody else has."""
    return beside(key, f"open:{secrets.token_hex(8)}")


class ValueReader(io.RawIOBase):
    """A value, read piece by piece from a copy."""

    def __init__(self, client: Client, key: bytes) -> None:
        super().__init__()
        self._client = client
        self._copy = private_key(key)
        self._at = 0
        with client.transaction() as transaction:
            copied = transaction.copy(key, self._copy)
            transaction.expire(self._copy, KEPT)
            size = transaction.strlen(self._copy)
        if not copied.result():
            super().close()
            raise FileNotFoundError(f"there is no key {key.decode('utf-8', 'backslashreplace')!r}")
        self._size = size.result()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next byte is read from."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte, counted from the beginning, from here, or from the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("a position before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read as many bytes as there is room for.

        Raises:
            KVError: the server cannot be asked, or the copy has ended.
        """
        wanted = min(len(buffer), self._size - self._at)
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if wanted <= 0:
            return 0
        with self._client.pipeline() as pipeline:
            piece = pipeline.getrange(self._copy, self._at, self._at + wanted - 1)
            pipeline.expire(self._copy, KEPT)
        data = piece.result()
        if len(data) != wanted:
            raise KVError(f"what was being read has ended, since nothing was read for {KEPT} seconds: open it again")
        buffer[:wanted] = data
        self._at += wanted
        return wanted

    def close(self) -> None:
        """Delete the copy."""
        if not self.closed:
            super().close()
            with contextlib.suppress(KVError):  # it ends by itself
                self._client.unlink(self._copy)

    def __del__(self) -> None:
        """A reader that is forgotten leaves its copy to end by itself: nothing is sent while garbage is collected."""


class ValueWriter(io.BufferedIOBase):
    """A value, written piece by piece. It takes the key's place when this is closed; not if its block raises."""

    def __init__(self, client: Client, key: bytes, ttl: Ttl | None, chunk: int) -> None:
        super().__init__()
        self._client = client
        self._key = key
        self._ttl = ttl
        self._chunk = chunk
        self._part = private_key(key)
        self._buffer = bytearray()
        self._sent = 0

    def writable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """How many bytes were written."""
        return self._sent + len(self._buffer)

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Add to the end; sent when there is a whole piece."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        view = memoryview(data).cast("B")
        for start in range(0, len(view), self._chunk):
            self._buffer += view[start : start + self._chunk]
            if len(self._buffer) >= self._chunk:
                self.flush()
        return len(view)

    def flush(self) -> None:
        """Send what was written so far; others do not see it yet."""
        if self._buffer and not self.closed:
            with self._client.transaction() as transaction:  # or what is lost in between would be kept for ever
                transaction.append(self._part, bytes(self._buffer))
                transaction.expire(self._part, KEPT)
            self._sent += len(self._buffer)
            self._buffer.clear()

    def close(self) -> None:
        """Send the rest, and make it the key's value.

        Raises:
            KVError: that failed. The key is as it was, unless `applied` says that nobody knows.
        """
        if self.closed:
            return
        try:
            self._finish()
        except BaseException:
            self.discard()
            raise
        super().close()

    def _finish(self) -> None:
        self.flush()
        if not self._sent:
            self._client.set(self._key, b"", ttl=self._ttl)
            return

        def rename(transaction: WatchingTransaction) -> None:
            if transaction.now.strlen(self._part) != self._sent:
                raise KVError(f"what was written has ended, since nothing more came for {KEPT} seconds", applied="no")
            transaction.persist(self._part)
            transaction.rename(self._part, self._key)
            if self._ttl is not None:
                transaction.expire(self._key, self._ttl)

        self._client.transaction(rename, watch=[self._part])

    def discard(self) -> None:
        """Forget what was written; the key is as it was."""
        if not self.closed:
            self._buffer.clear()
            super().close()
            with contextlib.suppress(KVError):  # it ends by itself
                self._client.unlink(self._part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        """A writer that is forgotten has written nothing: nothing is sent while garbage is collected."""
