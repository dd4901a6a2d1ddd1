"""The keyspace lock of a server that keeps a journal: whoever lets go of it has recorded what was changed.

So no change can be forgotten, whoever makes it (a command, a transaction, the expiry thread), and the order of the
journal is the order in which the lock was held. A server without a journal uses a plain lock and pays for none of this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self


class Lock(Protocol):
    """What the keyspace lock is used as: a reentrant lock."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; whether that succeeded."""

    def release(self) -> None:
        """Let go of it."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class RecordingLock:
    """A reentrant lock that calls ``commit`` before the outermost release."""

    __slots__ = ("_depth", "_lock", "commit", "is_owned")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0  # guarded by the lock itself
        self.commit: Callable[[], object] | None = None
        self.is_owned: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; whether that succeeded."""
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            self._depth += 1
        return taken

    def release(self) -> None:
        """Let go of it; the last one to do so commits."""
        try:
            if self._depth == 1 and self.commit is not None:
                self.commit()
        finally:
            self._depth -= 1
            self._lock.release()

    def __enter__(self) -> Self:
        self._lock.acquire()
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
