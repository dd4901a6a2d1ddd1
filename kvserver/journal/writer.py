"""The journal while the server runs: effects are appended under the keyspace lock, written and synced outside it.

Three numbers say how far it is; each counts batches since the start: ``appended`` >= ``written`` >= ``synced``. A reply
may leave when what it tells of is as safe as ``appendfsync`` promises: synced with ``always``, otherwise written.

* ``append`` runs under the keyspace lock, so the order of the journal is the order of the effects. It only puts the
  batch into a list.
* With ``always`` one thread, this one, writes and syncs whatever is waiting, all at once, and then sends the replies
  that were held back for it; no connection thread waits for another.
* With ``everysec`` and ``no`` a connection's thread writes what is waiting before it replies, and this thread syncs
  once a second as long as there is something to sync.

Locks, in the order in which they are taken: the keyspace lock (only to take the list), ``_io`` (whoever writes to the
file; it is there to be held during output), ``_waiting`` (those who wait). Nobody holds the keyspace lock and takes
another one here.

After a failed write or sync nothing is acknowledged any more. With ``always`` the server ends. With the others writes
are refused; writing is tried again each second, but after a failed sync only a rewrite into new files helps, for the
system reports a lost page once and then calls it clean.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from kvserver.journal.effects import Effect, with_databases
from kvserver.journal.format import encode_batch
from kvserver.observe.log import get_logger

Batch = Sequence[tuple[int | None, Effect]]
Waiter = tuple[int, Callable[[bool], object]]
"""The number of a batch, and what to call when it is safe (True) or never will be (False)."""

SYNC_SECONDS: Final = 1.0
_MOST_BEHIND: Final = 2.0
"""Seconds that syncing may be behind with ``everysec``; then replies wait for it."""
_SMALL: Final = 1024 * 1024
"""Bytes that are put together for one write."""


class _Switch:
    """In the list of batches: from here on, another file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = threading.Event()


class Journal:
    """The end of the increment that is being written.

    Args:
        keyspace_lock: guards the list of batches.
        path: the increment to go on with; it exists.
        policy: ``always``, ``everysec`` or ``no``; may be set anew at any time.
        on_failure: called when the journal has failed, and when it has recovered, from any thread.
        after_round: called by the thread after it has written; it may begin a rewrite.
        in_thread: called once, by the thread, before anything else.
    """

    def __init__(
        self,
        keyspace_lock: contextlib.AbstractContextManager[object],
        path: Path,
        policy: str,
        on_failure: Callable[[], object],
        after_round: Callable[[], object] = lambda: None,
        in_thread: Callable[[], object] = lambda: None,
    ) -> None:
        self._keyspace_lock = keyspace_lock
        self.policy = policy
        self._on_failure = on_failure
        self._after_round = after_round
        self._in_thread = in_thread
        self._queue: list[Batch | _Switch] = []  # guarded by the keyspace lock, as are the next two
        self.appended = 0
        self._idle = True  # the thread sleeps, and has to be woken for a batch
        self._io = threading.Lock()
        self._descriptor = _open(path)
        self._size = os.fstat(self._descriptor).st_size  # of what is good; guarded by _io, as are the next three
        self.grown = 0  # bytes written since the start, or since the last switch
        self._selected = -1
        self._unwritten: list[Batch | _Switch] = []  # taken from the queue, and not yet in the file
        self._retired: list[int] = []  # descriptors of files that are done; see _switch_to
        self.written = 0
        self.synced = 0
        self._behind_since: float | None = None  # when the oldest batch that is not synced was written
        self.delayed = 0  # replies that waited because syncing was behind
        self._waiting = threading.Lock()
        self._waiters: list[Waiter] = []
        self._wake = threading.Lock()  # held but for the moment of waking; whoever clears _idle releases it
        self._wake.acquire()
        self._stopping = threading.Event()
        self.failure: str | None = None  # why nothing is acknowledged
        self._sync_failed = False
        self._thread = threading.Thread(target=self._run, name="kvserver-journal")

    # Life

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> bool:
        """Write and sync what there is, and end; whether all of it is on disk."""
        self._stopping.set()
        with self._keyspace_lock:
            self._rouse()
        self._thread.join()
        for descriptor in (*self._retired, self._descriptor):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        return self.failure is None

    # Under the keyspace lock

    def append(self, batch: Batch) -> None:
        """Add a batch to what is to be written."""
        self._queue.append(batch)
        self.appended += 1
        if self._idle:
            self._rouse()

    def switch(self, path: Path) -> threading.Event:
        """Have everything that is appended from now on written to another file; the event says when that began.

        The keyspace lock is held, as for ``append``.
        """
        switch = _Switch(path)
        self._queue.append(switch)
        self._rouse()
        return switch.done

    def flush(self) -> None:
        """Write everything that has been appended, now. The keyspace lock is not held."""
        with self._io:
            self._write()

    def _rouse(self) -> None:
        if self._idle:
            self._idle = False
            self._wake.release()

    # Replies

    @property
    def holds_back(self) -> bool:
        """Whether replies wait for the disk."""
        return self.policy == "always"

    def when_safe(self, number: int, call: Callable[[bool], object]) -> bool:
        """Have ``call`` called, by this journal's thread, once batch ``number`` is synced; False if it is already."""
        with self._waiting:
            if self.synced >= number:
                return False
            failed = self.failure is not None
            if not failed:
                self._waiters.append((number, call))
        if failed:
            call(False)
        elif not self.holds_back:  # the thread may sleep, for everything is written
            with self._keyspace_lock:
                self._rouse()
        return True

    def wait(self, number: int, timeout: float | None = None) -> bool:
        """Wait until batch ``number`` is synced; whether it is. ``timeout`` in seconds; None: as long as it takes."""
        safe = False
        done = threading.Event()

        def tell(is_safe: bool) -> None:
            nonlocal safe
            safe = is_safe
            done.set()

        return not self.when_safe(number, tell) or (done.wait(timeout) and safe)

    def write(self, number: int) -> bool:
        """Before a reply that does not wait for the disk: see that batch ``number`` is written. Whether it is."""
        if self.written < number:
            with self._io:
                if self.written < number:
                    self._write()
        behind = self._behind_since
        if behind is not None and self.policy == "everysec" and time.monotonic() - behind > _MOST_BEHIND:
            self.delayed += 1
            self.wait(self.written)
        return self.written >= number

    # The thread

    def _run(self) -> None:
        self._in_thread()
        while not self._stopping.is_set():
            self._wake.acquire()
            while self._round():
                pass
        with self._io:
            self._write()
        self._sync()

    def _round(self) -> bool:
        """Write and sync once; whether there is, or soon will be, more to do."""
        if not self.holds_back or self.failure is not None:
            self._stopping.wait(SYNC_SECONDS)
        with self._io:
            self._write()
        if self.policy != "no" or self._waiters:
            self._sync()
        self._after_round()
        with self._io:
            retired, self._retired = self._retired, []
        for descriptor in retired:
            os.close(descriptor)
        with self._keyspace_lock:
            self._idle = not (self._queue or self._unwritten or self.failure is not None) or self._stopping.is_set()
            return not self._idle

    def _write(self) -> None:
        """Write everything that has been appended. ``_io`` is held."""
        with self._keyspace_lock:
            taken, self._queue = self._queue, []
            number = self.appended
        self._unwritten += taken
        if self._sync_failed and not any(isinstance(item, _Switch) for item in self._unwritten):
            return
        try:
            self._write_all()
        except (OSError, MemoryError) as error:
            self._fail("write", error)
            return
        self.written = number
        if self._behind_since is None and self.written > self.synced:
            self._behind_since = time.monotonic()
        if self.failure is not None and not self._sync_failed:
            self._recover()

    def _write_all(self) -> None:
        while self._unwritten:
            if isinstance(self._unwritten[0], _Switch):
                self._switch_to(self._unwritten[0])
                del self._unwritten[0]
                continue
            count, size, pieces, selected = 0, 0, [], self._selected
            for batch in self._unwritten:
                if isinstance(batch, _Switch) or size > _SMALL:
                    break
                commands, selected = with_databases(batch, selected)
                pieces.append(encode_batch(commands))
                size += len(pieces[-1])
                count += 1
            self._put(b"".join(pieces))
            self._selected = selected
            del self._unwritten[:count]

    def _put(self, data: bytes) -> None:
        """Append to the file, all of it or nothing."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)
        self.grown += len(data)

    def _switch_to(self, switch: _Switch) -> None:
        """Go on in another file. What the old one holds is synced first, unless that can no longer be had."""
        if not self._sync_failed:
            _sync(self._descriptor)
        descriptor = _open(switch.path)
        self._retired.append(self._descriptor)  # the thread may be syncing it just now; it closes it
        self._descriptor, self._size, self._selected = descriptor, os.fstat(descriptor).st_size, -1
        self.grown = 0
        switch.done.set()

    def _sync(self) -> None:
        """Sync what has been written, and let go who waits for it."""
        # In this order: what was written before the file was switched has been synced by that.
        number, behind = self.written, time.monotonic()
        if number > self.synced and not self._sync_failed:
            try:
                _sync(self._descriptor)
            except OSError as error:
                self._sync_failed = True
                self._fail("fdatasync", error)
                return
            self._behind_since = behind if self.written > number else None
            self._let_go(number)

    def _let_go(self, number: int) -> None:
        with self._waiting:
            self.synced = number
            safe = [call for wanted, call in self._waiters if wanted <= number]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] > number]
        for call in safe:
            call(True)

    # Failure

    def _fail(self, what: str, error: OSError | MemoryError) -> None:
        is_first = self.failure is None
        why = "out of memory" if isinstance(error, MemoryError) else error.strerror
        self.failure = f"{what}: {why}"
        if is_first:
            get_logger().error("journal.failed", call=what, error=why)
        with self._waiting:
            lost, self._waiters = self._waiters, []
        for _, call in lost:
            call(False)
        if is_first:
            self._on_failure()

    def _recover(self) -> None:
        self.failure = None
        get_logger().info("journal.recovered")
        self._on_failure()

    def begin_anew(self) -> None:
        """After a rewrite: everything up to the switch is in the new base, so an earlier failure has lost nothing."""
        with self._io:
            if self._sync_failed:
                self._sync_failed = False
                self._recover()


def _sync(descriptor: int) -> None:
    """Return when the bytes of a file are on the disk itself, as far as the system can tell."""
    if sys.platform == "darwin":  # there fsync leaves them in the disk's own memory
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
