"""Stand-ins for the keyspace lock: one that tells, and some that do not lock; and how to stop a command half-way.

With these a race has one outcome. A command is stopped in the middle until its rival has finished or has to wait for
the lock, so nothing depends on time.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from kvserver.commands.transactions import exec_


class WatchedLock:
    """A lock that tells when somebody has to wait for it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.contended = threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.contended.set()
            self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def held(self) -> bool:
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]


class NoLock(WatchedLock):
    """What is left when the lock is removed."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def held(self) -> bool:
        return True


class NoIsolation(WatchedLock):
    """What is left when EXEC does not hold the lock: each of its commands still does."""

    def __enter__(self) -> None:
        if sys._getframe(1).f_code is not exec_.__code__:
            super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys._getframe(1).f_code is not exec_.__code__:
            super().__exit__(kind, error, trace)


def after_call(original: Callable[..., Any], call: int, meet: Callable[[], None]) -> Callable[..., Any]:
    """The function, which calls ``meet`` after its n-th call, in the first thread that comes there only."""
    calls: list[int] = []
    mine: list[int] = []

    def stopped(*args: Any) -> Any:
        result = original(*args)
        mine[:] = mine or [threading.get_ident()]
        if mine == [threading.get_ident()]:
            calls.append(1)
            if len(calls) == call:
                meet()
        return result

    return stopped
