"""The connections' threads: one each, known from before it starts until it ends; and what many mean to the interpreter.

No sockets here.

Whoever ends last waits for the others: the accept thread starts them all, and ends only when they have
(:meth:`ConnectionThreads.wait`). It is an ordinary thread, so the interpreter does not exit before, and none of them is
killed in the middle of a reply.

So nothing depends on the interpreter's own list of threads to wait for at exit, and up to Python 3.12 they are kept off
it, as daemons: there it is searched from end to end whenever a thread starts or ends, which at ten thousand connections
took longer than all the rest of accepting one.

Under a global interpreter lock, a thread that waits for the lock wakes up once every switch interval (5 ms) to ask for
it. When thousands of clients leave at once, that is what their threads do, and hardly any of them gets to end: 10,000
took half a minute or more, during which nobody else was served. So the interval grows with the number of threads.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

_MANY = 1000
"""Threads. With fewer, the interpreter's own interval does."""
_SHARE = 50e-6
"""Seconds of switch interval a thread: some ten times what it takes a thread to wake up and ask."""
_USUAL_INTERVAL = sys.getswitchinterval()
_FEW = 16
_LISTED_QUICKLY = sys.version_info >= (3, 13)

C = TypeVar("C")
"""A connection."""


class ConnectionThreads(Generic[C]):
    """Who is being served, and by which thread.

    Locking: one lock, held to look or to change an entry; nobody waits for a thread with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: dict[C, threading.Thread] = {}
        self._leaving: list[threading.Thread] = []  # about to end: they have nothing left to do here
        self._look_again_at = _FEW  # so many of them, to forget those that have ended

    def start(self, connection: C, run: Callable[[], object], name: str) -> None:
        """Have a thread of its own serve a connection.

        Raises:
            RuntimeError: the system gives no more threads.
        """
        thread = threading.Thread(target=self._run, args=(connection, run), name=name, daemon=not _LISTED_QUICKLY)
        # Before it starts: a connection that ends at once must find itself here to take itself out.
        with self._lock:
            self._threads[connection] = thread
            self._adapt()
        try:
            thread.start()
        except BaseException:
            self._forget(connection)
            raise

    def _run(self, connection: C, run: Callable[[], object]) -> None:
        try:
            run()
        finally:
            self._forget(connection)

    def _forget(self, connection: C) -> None:
        with self._lock:
            self._leaving.append(self._threads.pop(connection))
            if len(self._leaving) >= self._look_again_at:  # twice as many as were left: so it costs each one little
                self._leaving = [thread for thread in self._leaving if thread.is_alive()]
                self._look_again_at = max(_FEW, 2 * len(self._leaving))
            self._adapt()

    def _adapt(self) -> None:
        """Let who holds the interpreter's lock keep it for longer while there are many who may ask. Lock held."""
        count = len(self._threads)
        if count > _MANY and has_gil():
            sys.setswitchinterval(count * _SHARE)
        elif count == _MANY:
            sys.setswitchinterval(_USUAL_INTERVAL)

    def connections(self) -> list[C]:
        """Those whose threads have not ended."""
        with self._lock:
            return list(self._threads)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for all threads that run now, so long or for good; whether they have ended."""
        until = None if seconds is None else time.monotonic() + seconds
        with self._lock:
            threads = [thread for thread in (*self._threads.values(), *self._leaving) if thread.is_alive()]
        for thread in threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)


def pin_thread(choice: str) -> None:
    """Keep the calling thread on this process's CPU, if ``choice`` (see ``pin_threads``) and the system say so.

    Under a global interpreter lock, threads on two CPUs hand the lock to and fro: each ``recv`` and ``send`` gives it
    up, and getting it back wakes the other CPU. On one CPU the hand-over is a plain switch. Each process takes one of
    the CPUs it is allowed by its own number, so that several servers do not meet on the first.
    """
    wanted = choice == "yes" or (choice == "auto" and has_gil())
    if wanted and sys.platform == "linux":
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) > 1:
            with contextlib.suppress(OSError):  # a container may forbid it
                os.sched_setaffinity(0, {allowed[os.getpid() % len(allowed)]})


def has_gil() -> bool:
    """Whether the interpreter lets only one thread at a time run Python code."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
