"""The journal while the server runs: effects are appended under the keyspace lock, written and synced outside it.

Three numbers say how far it is; each counts batches since the start: ``appended`` >= ``written`` >= ``synced``. A reply
may leave when what it tells of is as safe as ``appendfsync`` promises: synced with ``always``, otherwise written.

* ``append`` runs under the keyspace lock, so the order of the journal is the order of the effects. It only puts the
  batch into a queue.
* One thread, the writer, writes whatever is waiting, all at once, with ``always`` syncs it, and then sends the replies
  that were held back for it. No connection thread waits for another, or for the disk.
* With ``everysec`` another thread, the syncer, syncs once a second as long as there is something to sync; with ``no``
  only when WAITAOF asks for it.

Locks: the keyspace lock (to append, and to put the writer to sleep); ``_io`` and ``_syncing``, which are there to be
held while somebody writes or syncs; ``_waiting`` (those who wait), the innermost. Nobody takes one of the first three
while holding another of them.

After a failed write or sync nothing is acknowledged any more. With ``always`` the server ends. With the others writes
are refused; writing is tried again each second, but after a failed sync only a rewrite into new files helps, for the
system reports a lost page once and then calls it clean.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from kvserver.journal.effects import Effect, with_databases
from kvserver.journal.format import annotated, encode_command
from kvserver.observe.log import get_logger

Batch = Sequence[tuple[int | None, Effect]]
Waiter = tuple[int, Callable[[bool], object]]
"""The number of a batch, and what to call when it is safe (True) or never will be (False)."""

SYNC_SECONDS: Final = 1.0
_MOST_BEHIND: Final = 2.0
"""Seconds that syncing may be behind with ``everysec``; then replies wait for it."""
_SMALL: Final = 1024 * 1024
"""Bytes that are put together for one write, and under one checksum."""


class Switch:
    """In the queue of batches: from here on, another file.

    ``begin`` makes it count and returns its path; it is called when everything before is written, so that no other file
    than the last that counts is ever written to.
    """

    def __init__(self, begin: Callable[[], Path]) -> None:
        self.begin = begin
        self.done = threading.Event()
        self.error: OSError | None = None  # why the file was not switched after all


class _Waiting:
    """A thread that waits to be told."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._is_safe = False

    def tell(self, is_safe: bool) -> None:
        """End the waiting."""
        self._is_safe = is_safe
        self._done.set()

    def wait(self, timeout: float | None) -> bool:
        """Whether the good news came in time (seconds; None: as long as it takes)."""
        return self._done.wait(timeout) and self._is_safe


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
        self.write_file: Callable[[int, memoryview], int] = _write  # tests put faults here
        self.sync_file: Callable[[int], None] = _sync
        self.policy = policy
        self._on_failure = on_failure
        self._after_round = after_round
        self._in_thread = in_thread
        # Added to under the keyspace lock, taken from under _io: each is one step of the interpreter's, so the two
        # need no lock in common.
        self._queue: collections.deque[Batch | Switch] = collections.deque()
        self.appended = 0  # guarded by the keyspace lock, as is the next
        self._idle = True  # the thread sleeps, and has to be woken for a batch
        self._io = threading.Lock()
        self._descriptor = _open(path)
        self._size = os.fstat(self._descriptor).st_size  # of what is good; guarded by _io, as are the next three
        self.grown = 0  # bytes written since the start, or since the last switch
        self._selected = -1
        self._unwritten: list[Batch | Switch] = []  # taken from the queue, and not yet in the file
        self._retired: list[int] = []  # descriptors of files that are done; see _switch
        self._taken = 0  # batches taken from the queue, written or not
        self.written = 0
        self.synced = 0
        self._behind_since: float | None = None  # when the oldest batch that is not synced was written
        self.delayed = 0  # rounds that waited because syncing was behind
        self._waiting = threading.Lock()
        self._for_reply: list[Waiter] = []  # those who wait until a batch is as safe as a reply needs
        self._for_sync: list[Waiter] = []  # those who wait until it is synced
        self._wake = threading.Lock()  # held but for the moment of waking; whoever clears _idle releases it
        self._wake.acquire()
        self._syncing = threading.Lock()  # held while a file is synced, and while one is closed
        self._sync_wanted = threading.Event()
        self._stopping = threading.Event()
        self.failure: str | None = None  # why nothing is acknowledged
        self._sync_failed = False
        self._threads = [
            threading.Thread(target=self._write_loop, name="kvserver-journal"),
            threading.Thread(target=self._sync_loop, name="kvserver-journal-sync"),
        ]

    # Life

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> bool:
        """Write and sync what there is, and end; whether all of it is on disk."""
        self._stopping.set()
        self._sync_wanted.set()
        with self._keyspace_lock:
            self._rouse()
        for thread in self._threads:
            thread.join()
        self.flush()
        self._sync()
        self._let_go()
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

    def switch(self, begin: Callable[[], Path]) -> Switch:
        """Have everything that is appended from now on written to another file, the one that ``begin`` returns.

        The keyspace lock is held, as for ``append``.
        """
        switch = Switch(begin)
        self._queue.append(switch)
        self._rouse()
        return switch

    def _rouse(self) -> None:
        if self._idle:
            self._idle = False
            self._wake.release()

    # Waiting

    def _is_safe(self, number: int) -> bool:
        return (self.synced if self.policy == "always" else self.written) >= number

    def when_safe(self, number: int, call: Callable[[bool], object]) -> bool:
        """Have the writer call ``call`` once batch ``number`` is as safe as a reply needs; False if it is already."""
        with self._waiting:
            if self._is_safe(number):
                return False
            if self.failure is None:
                self._for_reply.append((number, call))
                return True
        call(False)
        return True

    def wait_safe(self, number: int) -> bool:
        """Wait until batch ``number`` is as safe as a reply needs; whether it is."""
        waiter = _Waiting()
        return not self.when_safe(number, waiter.tell) or waiter.wait(None)

    def wait_synced(self, number: int, timeout: float | None = None) -> bool:
        """Wait until batch ``number`` is synced; whether it is. ``timeout`` in seconds; None: as long as it takes."""
        waiter = _Waiting()
        with self._waiting:
            if self.synced >= number:
                return True
            if self.failure is not None:
                return False
            self._for_sync.append((number, waiter.tell))
        self._sync_wanted.set()
        return waiter.wait(timeout)

    def _let_go(self) -> None:
        """Tell those whose batches are safe, or synced."""
        with self._waiting:
            safe = [call for number, call in self._for_reply if self._is_safe(number)]
            self._for_reply = [waiter for waiter in self._for_reply if not self._is_safe(waiter[0])]
            safe += [call for number, call in self._for_sync if number <= self.synced]
            self._for_sync = [waiter for waiter in self._for_sync if waiter[0] > self.synced]
        for call in safe:
            call(True)

    # The threads

    def _write_loop(self) -> None:
        self._in_thread()
        while not self._stopping.is_set():
            self._wake.acquire()
            while self._round():
                pass

    def _round(self) -> bool:
        """Write what waits, and let go who waited for it; whether there is more to do."""
        if self.failure is not None:
            self._stopping.wait(SYNC_SECONDS)
        self.flush()
        if self.policy == "always":
            self._sync()
        elif self.policy == "everysec":
            self._sync_wanted.set()
            self._catch_up()
        self._let_go()
        self._after_round()
        with self._keyspace_lock:
            self._idle = not (self._queue or self._unwritten or self.failure is not None) or self._stopping.is_set()
            return not self._idle

    @property
    def behind(self) -> float:
        """Seconds since the oldest batch was written that is not synced; 0 if there is none."""
        since = self._behind_since
        return 0.0 if since is None else time.monotonic() - since

    def _catch_up(self) -> None:
        """Hold replies back while syncing is too far behind."""
        first = True
        while self._is_behind() and self.failure is None and not self._stopping.is_set():
            self.delayed += first
            first = False
            self.wait_synced(self.synced + 1, SYNC_SECONDS)

    def _is_behind(self) -> bool:
        since = self._behind_since
        return since is not None and time.monotonic() - since > _MOST_BEHIND

    def _sync_loop(self) -> None:
        while not self._stopping.is_set():
            self._sync_wanted.wait()
            self._stopping.wait(SYNC_SECONDS)
            self._sync_wanted.clear()
            self._sync()
            self._let_go()
            self._close_retired()

    def _close_retired(self) -> None:
        with self._io:
            retired, self._retired = self._retired, []
        with self._syncing:
            for descriptor in retired:
                os.close(descriptor)

    def flush(self) -> None:
        """Write everything that has been appended, now. The keyspace lock is not held."""
        with self._io:
            self._write()

    def _write(self) -> None:
        """Write everything that has been appended. ``_io`` is held."""
        while self._queue:
            item = self._queue.popleft()
            self._unwritten.append(item)
            self._taken += not isinstance(item, Switch)
        if self._sync_failed and not any(isinstance(item, Switch) for item in self._unwritten):
            return
        try:
            self._write_all()
        except (OSError, MemoryError) as error:
            self._fail("write", error)
            return
        self.written = self._taken
        if self._behind_since is None and self.written > self.synced:
            self._behind_since = time.monotonic()
        if self.failure is not None and not self._sync_failed:
            self._recover()

    def _write_all(self) -> None:
        while self._unwritten:
            if isinstance(self._unwritten[0], Switch):
                self._switch(self._unwritten[0])
                del self._unwritten[0]
                continue
            count, size, pieces, selected = 0, 0, [], self._selected
            for batch in self._unwritten:
                if isinstance(batch, Switch) or size > _SMALL:
                    break
                commands, selected = with_databases(batch, selected)
                for words in commands:
                    pieces.append(encode_command(words))
                    size += len(pieces[-1])
                count += 1
            self._put(annotated(b"".join(pieces)))
            self._selected = selected
            del self._unwritten[:count]

    def _put(self, data: bytes) -> None:
        """Append to the file, all of it or nothing."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self.write_file(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)
        self.grown += len(data)

    def _switch(self, switch: Switch) -> None:
        """Go on in another file. What the old one holds is synced first, unless that can no longer be had."""
        if not self._sync_failed:
            self.sync_file(self._descriptor)
        try:
            descriptor = _open(switch.begin())
        except OSError as error:  # it is the rewrite that fails, not the journal
            switch.error = error
            switch.done.set()
            return
        self._retired.append(self._descriptor)  # it may be being synced just now; the syncer closes it
        self._sync_wanted.set()
        self._descriptor, self._size, self._selected = descriptor, os.fstat(descriptor).st_size, -1
        self.grown = 0
        switch.done.set()

    def _sync(self) -> None:
        """Sync what has been written."""
        with self._syncing:
            # In this order: what was written before the file was switched has been synced by that.
            number, behind = self.written, time.monotonic()
            if number <= self.synced or self._sync_failed:
                return
            try:
                self.sync_file(self._descriptor)
            except OSError as error:
                self._sync_failed = True
                self._fail("fdatasync", error)
                return
            self._behind_since = behind if self.written > number else None
            with self._waiting:
                self.synced = number

    # Failure

    def _fail(self, what: str, error: OSError | MemoryError) -> None:
        is_first = self.failure is None
        why = "out of memory" if isinstance(error, MemoryError) else error.strerror
        self.failure = f"{what}: {why}"
        if is_first:
            get_logger().error("journal.failed", call=what, error=why)
            self._on_failure()  # first: who is dropped and connects again at once is to be refused, not dropped again
        with self._waiting:
            lost = self._for_reply + self._for_sync
            self._for_reply, self._for_sync = [], []
        for _, call in lost:
            call(False)

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


def _write(descriptor: int, data: memoryview) -> int:
    return os.write(descriptor, data)


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
