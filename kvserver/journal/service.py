"""Durability as the rest of the server sees it: open and load, record, rewrite, tell, close."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from kvserver.journal.directory import Directory, Manifest
from kvserver.journal.effects import Effects
from kvserver.journal.recovery import Progress, Report, Run, recover
from kvserver.journal.rewrite import rewrite
from kvserver.journal.writer import Journal
from kvserver.observe.log import get_logger
from kvserver.store.memory import Keyspace


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that matter here, as they are now."""

    fsync: str = "always"
    growth: int = 100  # percent by which the files may grow over the base before they are rewritten; 0: any
    least: int = 64 * 1024**2  # bytes below which nothing is rewritten by itself


class Persistence:
    """A data directory in use.

    Args:
        path: the directory; made if it does not exist.
        keyspace: what is kept there.
        policy: the settings; asked each time.
        on_failure: called when the journal fails, and when it has recovered; ``failure`` says which.

    Attributes:
        failure: why nothing is acknowledged any more; None while all is well.
        saved_at: wall-clock milliseconds of the last rewrite, or of the start.
    """

    def __init__(
        self, path: str, keyspace: Keyspace, policy: Callable[[], Policy], on_failure: Callable[[], object]
    ) -> None:
        self.directory = Directory(path)
        self._keyspace = keyspace
        self._policy = policy
        self._on_failure = on_failure
        self._effects = Effects()
        self.journal: Journal
        self._rewriting = threading.Lock()  # held for one rewrite
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()  # of _thread, and of beginning one
        self._stopping = False
        self.saved_at = keyspace.clock()
        self.base_size = 0
        self.last_rewrite_ok = True
        self.last_rewrite_seconds = -1
        self._rewrite_began: float | None = None
        self.report = Report()

    def open(
        self, run: Run, progress: Progress = lambda *_: None, in_thread: Callable[[], object] = lambda: None
    ) -> Report:
        """Take the directory, load it, and begin to record. The journal's thread calls ``in_thread`` first.

        Raises:
            DirectoryError, RecoveryError: it cannot be used.
        """
        directory = self.directory
        directory.open()
        if directory.manifest.names:
            get_logger().info("data.loading", files=len(directory.manifest.names), bytes=directory.size())
        try:
            self.report = recover(directory, self._keyspace, run, progress)
            directory.remove_strays()
            if not directory.manifest.increments:
                self._begin_increment()
            self.base_size = directory.size()
            increment = directory.folder / directory.manifest.increments[-1][0]
            self.journal = Journal(
                self._keyspace.lock,
                increment,
                self._policy().fsync,
                self._on_failure,
                self._consider_rewrite,
                in_thread,
            )
        except BaseException:
            directory.close()
            raise
        self._keyspace.record(self._effects, self._commit)
        self.journal.start()
        return self.report

    def _begin_increment(self) -> None:
        directory = self.directory
        number = directory.manifest.highest + 1
        name = directory.increment_name(number)
        (directory.folder / name).touch(0o600)
        directory.write_manifest(Manifest(directory.manifest.base, ((name, number),)))

    def _commit(self) -> None:
        """Record what was changed; the keyspace lock is about to be released."""
        batch = self._effects.take()
        if batch:
            self.journal.append(batch)

    def close(self) -> bool:
        """Write and sync everything, and let the directory go; whether all of it is on disk."""
        with self._guard:
            if self._stopping:
                return self.failure is None
            self._stopping = True
            thread = self._thread
        if thread is not None:
            thread.join()
        self._keyspace.record(None, None)
        safe = self.journal.stop()
        self.directory.close()
        return safe

    @property
    def failure(self) -> str | None:
        """Why nothing is acknowledged any more."""
        return self.journal.failure

    # Rewriting

    @property
    def rewriting_since(self) -> float | None:
        """Monotonic seconds at which the rewrite in progress began; None if there is none."""
        return self._rewrite_began

    def rewrite(self) -> bool:
        """Rewrite now, in this thread; whether it succeeded. False, too, if one is in progress."""
        if not self._rewriting.acquire(blocking=False):
            return False
        self._rewrite_began = began = time.monotonic()
        try:
            self.base_size = rewrite(self.directory, self.journal, self._keyspace)
            self.saved_at = self._keyspace.clock()
            self.last_rewrite_ok = True
            get_logger().info("journal.rewritten", bytes=self.base_size, seconds=round(time.monotonic() - began, 3))
        except (OSError, MemoryError) as error:
            self.last_rewrite_ok = False
            get_logger().error("journal.rewrite_failed", error=getattr(error, "strerror", None) or str(error))
        finally:
            self.last_rewrite_seconds = round(time.monotonic() - began)
            self._rewrite_began = None
            self._rewriting.release()
        return self.last_rewrite_ok

    def rewrite_in_background(self) -> bool:
        """Begin a rewrite in a thread of its own; False if one is in progress, or the server is stopping."""
        with self._guard:
            if self._stopping or (self._thread is not None and self._thread.is_alive()):
                return False
            self._thread = threading.Thread(target=self.rewrite, name="kvserver-rewrite")
            self._thread.start()
            return True

    def _consider_rewrite(self) -> None:
        """Rewrite if the files have grown enough."""
        policy = self._policy()
        if not policy.growth or self._rewrite_began is not None:
            return
        size = self.size()
        if size > policy.least and size > self.base_size * (1 + policy.growth / 100):
            self.rewrite_in_background()

    def size(self) -> int:
        """Bytes of all files together."""
        return self.base_size + self.journal.grown
