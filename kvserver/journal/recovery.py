"""The files of a data directory, back into a keyspace.

Commands are run again in the order of the files. Meanwhile no time passes: nothing expires, for a key that was alive
when a command was recorded has to be there when the command is run again. What is past its deadline goes afterwards.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kvserver.journal.directory import Directory
from kvserver.journal.format import Batch, Data, Truncated, Unreadable, read_batches
from kvserver.protocol.decoder import Command
from kvserver.store.memory import Keyspace

_TOGETHER = 256
"""Batches a lock hold, so that INFO is answered meanwhile."""
_RDB = (b"REDIS", b"VALKEY")

Run = Callable[[Command], str | None]
"""Runs a command; returns the error's text, or None."""
Progress = Callable[[int, int], object]
"""Is told how many bytes of how many have been read."""


class RecoveryError(Exception):
    """The files cannot be loaded; the text is one line that says which, where, why, and what to do."""


@dataclass
class Report:
    """What was loaded.

    Attributes:
        keys: in all databases.
        commands: run again.
        seconds: that it took.
        cut: the file whose tail was missing, where it was cut, and why; None for whole files.
    """

    keys: int = 0
    commands: int = 0
    seconds: float = 0.0
    cut: tuple[Path, int, str] | None = None


def recover(directory: Directory, keyspace: Keyspace, run: Run, progress: Progress = lambda *_: None) -> Report:
    """Load everything. A tail that a crash has cut short is cut off the last file.

    Args:
        directory: opened.
        keyspace: empty, and without a recorder.
        run: how to run the commands that have no short way here.
        progress: told now and then.

    Raises:
        RecoveryError: something is damaged, or is no journal; nothing on disk has been changed.
    """
    report, started = Report(), time.monotonic()
    loader = _Loader(keyspace, run, report, progress, directory.size())
    paths = [directory.folder / name for name in directory.manifest.names]
    clock, keyspace.clock = keyspace.clock, lambda: 0
    try:
        for path in paths:
            loader.load(path, is_last=path.name == directory.last_in_use())
    finally:
        keyspace.clock = clock
        keyspace.moment = None
    with keyspace.lock:
        keyspace.expiry.begin_anew(
            (deadline, database, key) for database in keyspace.databases for key, deadline in database.deadlines.items()
        )
        keyspace.hits = keyspace.misses = keyspace.expired = 0
    if report.cut is not None:
        cut_off(report.cut[0], report.cut[1])
    report.keys = sum(len(database.values) for database in keyspace.databases)
    report.seconds = time.monotonic() - started
    return report


class _Loader:
    def __init__(self, keyspace: Keyspace, run: Run, report: Report, progress: Progress, total: int) -> None:
        self._keyspace = keyspace
        self._run = run
        self._report = report
        self._progress = progress
        self._total = total
        self._done = 0
        self._selected = 0

    def load(self, path: Path, *, is_last: bool) -> None:
        with opened(path) as data:
            refuse_rdb(path, data)
            self._selected = 0
            self._run([b"SELECT", b"0"])
            batches = read_batches(data)
            start = 0
            try:
                while True:
                    with self._keyspace.lock:
                        for _ in range(_TOGETHER):
                            batch = next(batches, None)
                            if batch is None:
                                return
                            self._apply(path, start, batch)
                            start = batch.end
                    self._progress(self._done + start, self._total)
            except Unreadable as error:
                if not isinstance(error, Truncated) or not is_last:
                    raise RecoveryError(describe(path, error)) from None
                self._report.cut = (path, error.offset, error.reason)
            finally:
                self._done += len(data)

    def _apply(self, path: Path, start: int, batch: Batch) -> None:
        databases = self._keyspace.databases
        for words in batch.commands:
            name, count = words[0], len(words)
            if name == b"SET" and (count == 3 or (count == 5 and words[3] == b"PXAT" and words[4].isdigit())):
                databases[self._selected].load(words[1], words[2], int(words[4]) if count == 5 else None)
                continue
            fault = self._run(words)
            if fault is not None:
                raise RecoveryError(f"{path}: at byte {start}: {fault}")
            if name.upper() == b"SELECT":
                self._selected = int(words[1])
        self._report.commands += len(batch.commands)


@contextmanager
def opened(path: Path) -> Iterator[Data]:
    """A file's bytes, without reading all of them into memory."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def refuse_rdb(path: Path, data: Data) -> None:
    """Say how to convert a base file that is a snapshot in Redis' own format.

    Raises:
        RecoveryError: it is one.
    """
    if data[:6].startswith(_RDB):
        raise RecoveryError(
            f"{path}: is in RDB format. Start Redis or Valkey on this directory with --aof-use-rdb-preamble no, run "
            "BGREWRITEAOF there, stop it, and start kvserver again."
        )


def describe(path: Path, error: Unreadable) -> str:
    """A line about something unreadable that is not to be passed over."""
    return (
        f"{path}: at byte {error.offset}: {error.reason}. kvserver check tells more; kvserver repair cuts the file "
        "there, and keeps a copy."
    )


def cut_off(path: Path, size: int) -> None:
    """Make a file end at ``size``, for good."""
    with path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())
