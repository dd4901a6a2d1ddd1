"""A new base in the place of a journal that has grown, while writing goes on.

The order is what makes it safe at every moment:

1. under the keyspace lock the databases are copied (the tables, not the values: 26 ms for a million keys) and the
   journal is told to go on in a new increment: the copy is exactly what the files before it come to;
2. once the old increment is written and synced, the new one is created, and the manifest names it behind those there
   are;
3. the copy is written to a new base, beside, and synced;
4. the manifest names the new base and the new increment, and nothing else;
5. the old files are removed.

A crash before 4 leaves the old base with all increments; after it, the new base with one. At every moment only the last
file that the manifest names is written to, so only that can be cut short.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kvserver.journal.directory import Directory, Manifest, sync
from kvserver.journal.effects import Effect, as_set
from kvserver.journal.format import encode_batch
from kvserver.journal.writer import Journal
from kvserver.store.memory import Keyspace

_TOGETHER = 64 * 1024
"""Bytes of keys and values a batch of a base file."""
_SWITCH_SECONDS = 60.0

Copy = list[tuple[int, dict[bytes, bytes], dict[bytes, int]]]
"""Databases: number, values, deadlines."""


def rewrite(directory: Directory, journal: Journal, keyspace: Keyspace) -> int:
    """Replace all files by a new base and a new increment; returns the base's size in bytes.

    Raises:
        OSError: there is no space, or the disk fails. What was there before still counts.
    """
    before = directory.manifest
    number = before.highest + 1
    increment = directory.increment_name(number)

    def begin() -> Path:
        _create(directory.folder / increment)
        directory.write_manifest(Manifest(before.base, (*before.increments, (increment, number))))
        return directory.folder / increment

    with keyspace.lock:
        switch = journal.switch(begin)
        copy, now = copy_of(keyspace), keyspace.clock()
    journal.flush()
    if not switch.done.wait(_SWITCH_SECONDS):
        raise TimeoutError("the journal does not go on in its new file")
    if switch.error is not None:
        raise switch.error
    base = directory.base_name(number)
    size = write_base(directory.folder / base, copy, now)
    del copy
    directory.write_manifest(Manifest((base, number), ((increment, number),)))
    directory.remove_strays()
    journal.begin_anew()
    return size


def copy_of(keyspace: Keyspace) -> Copy:
    """The databases as they are at this moment. The keyspace lock is held."""
    return [
        (database.index, database.values.copy(), database.deadlines.copy())
        for database in keyspace.databases
        if database.values
    ]


def write_base(path: Path, copy: Copy, now: int) -> int:
    """Write a base file beside, sync it and give it its name; returns its size. ``now`` in wall-clock milliseconds."""
    temporary = path.with_name(f"temp_{path.name}")
    try:
        with temporary.open("wb", buffering=1024 * 1024) as file:
            for batch in _batches(copy, now):
                file.write(encode_batch(batch))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
    return size


def _batches(copy: Copy, now: int) -> Iterator[list[Effect]]:
    for index, values, deadlines in copy:
        batch: list[Effect] = [(b"SELECT", b"%d" % index)]
        size = 0
        for key, value in values.items():
            deadline = deadlines.get(key)
            if deadline is not None and deadline <= now:
                continue
            batch.append(as_set(key, value, deadline))
            size += len(key) + len(value) + 64
            if size > _TOGETHER:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600))
    sync(path.parent)
