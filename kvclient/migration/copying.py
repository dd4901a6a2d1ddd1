"""Copying keys: read at the source, compared with what was copied before, stored or deleted at the target.

Not here: which keys, and when (plan.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from kvclient.errors import AuthError, ServerError
from kvclient.migration.plan import Row, Verdict, judge
from kvclient.migration.reading import NONE, STRING, Found, Page, Reader
from kvclient.migration.sides import PASSING, UNSURE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvclient.commands.base import Future
    from kvclient.migration.ledger import Ledger
    from kvclient.migration.sides import Side
    from kvclient.pipeline import Pipeline

T = TypeVar("T")
EXAMPLES: Final = 5
_DIGEST: Final = 16  # bytes


class Patience(Protocol):
    """Runs what may fail for a while, and does nothing for a while. What changes meanwhile is heard."""

    def keep_trying(self, side: Side, action: Callable[[], T], /) -> T:
        """What it returns, as soon as it does."""
        raise NotImplementedError

    def pause(self, seconds: float, /) -> None:
        """Do nothing for so long."""


class LeftOut(NamedTuple):
    """A key that was not copied: the type of its value, and why not."""

    kind: str
    why: str


class Counts:
    """What was done.

    Attributes:
        stored, deleted, unchanged: keys, each counted as often as that was done.
        bytes: of the values stored.
        left_out: keys that are at the source and were not copied, by database and name.
    """

    def __init__(self) -> None:
        self.stored = self.deleted = self.unchanged = self.bytes = 0
        self.left_out: dict[tuple[int, bytes], LeftOut] = {}

    def by_type(self) -> Counter[str]:
        """How many keys were not copied, by type."""
        return Counter(left.kind for left in self.left_out.values())

    def examples(self, kind: str) -> list[bytes]:
        """Some of those of a type."""
        return [key for (_, key), left in self.left_out.items() if left.kind == kind][:EXAMPLES]


class Copier:
    """Copies keys of databases.

    Args:
        source, target: the servers.
        databases: the target's number of each database of the source.
        ledger: what was copied.
        patience: how failures are borne.
        is_dry: nothing is changed, at the target or in the ledger.
    """

    def __init__(
        self,
        source: Side,
        target: Side,
        databases: Callable[[int], int],
        ledger: Ledger,
        patience: Patience,
        *,
        is_dry: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._database = databases
        self._ledger = ledger
        self._patience = patience
        self._is_dry = is_dry
        self._can_restore = target.can_restore()
        self._readers: dict[int, Reader] = {}
        self._is_unsure = False  # whether a connection to the target was lost with something under way
        self.counts = Counts()

    def reader(self, db: int) -> Reader:
        """What reads a database of the source."""
        if db not in self._readers:
            self._readers[db] = Reader(self._source.client(db), dumps=self._can_restore and not self._is_dry)
        return self._readers[db]

    def copy(self, db: int, keys: Sequence[bytes]) -> None:
        """Have these keys at the target be as they are at the source.

        Raises:
            KVError: a server refuses, or was away for too long.
        """
        reader = self.reader(db)
        groups, others, size = self._read(lambda: reader.sizes(keys))
        if self._is_dry:
            self.counts.stored += sum(map(len, groups))
            self.counts.bytes += size
        else:
            for group in groups:
                page = self._read(lambda group=group: reader.strings(group))  # type: ignore[misc]
                others += page.others
                self._apply(db, page)
        if others:
            for group in self._read(lambda: reader.weigh(others)):
                self._apply(db, self._read(lambda group=group: reader.others(group)))  # type: ignore[misc]

    def _read(self, action: Callable[[], T]) -> T:
        return self._patience.keep_trying(self._source, action)

    def _apply(self, db: int, page: Page) -> None:
        """Do at the target what has to be done."""
        rows = self._ledger.rows(db, [found.key for found in page.found])
        stored: list[tuple[Found, bytes]] = []
        deleted: list[bytes] = []
        ended: list[bytes] = []
        for found in page.found:
            digest = self._digest(db, found)
            row = rows.get(found.key)
            if digest is None and found.kind != NONE:
                continue
            match judge(digest, found.deadline, row, page.now + self._source.skew, self.reader(db).tolerance):
                case Verdict.STORE if digest is not None:
                    stored.append((found, digest))
                case Verdict.DELETE:
                    deleted.append(found.key)
                case Verdict.FORGET:
                    ended.append(found.key)
                case _:
                    self.counts.unchanged += found.kind != NONE
        self._store(db, stored, deleted)
        if deleted or ended:
            self._ledger.forget(db, [*deleted, *ended])

    def _digest(self, db: int, found: Found) -> bytes | None:
        """A key's digest; None if there is none, or it cannot be copied, which is noted."""
        self.counts.left_out.pop((db, found.key), None)
        if found.kind == STRING or (self._can_restore and found.value):
            value = found.value or b""
            return hashlib.blake2b(value, digest_size=_DIGEST, person=found.kind[:16]).digest()
        if found.kind != NONE:
            why = "the target has strings only" if not self._can_restore else "it was not read"
            self.counts.left_out[db, found.key] = LeftOut(found.kind.decode("utf-8", "replace"), why)
        return None

    def _store(self, db: int, stored: list[tuple[Found, bytes]], deleted: list[bytes]) -> None:
        if not stored and not deleted:
            return
        self._ledger.begin(db, [found.key for found, _ in stored])
        refused = self._patience.keep_trying(
            self._target, lambda: self._write(db, [each for each, _ in stored], deleted)
        )
        for key, left in refused.items():
            self.counts.left_out[db, key] = left
        done = [(found, digest) for found, digest in stored if found.key not in refused]
        self._ledger.finish(db, [(found.key, Row(digest, found.deadline)) for found, digest in done])
        self.counts.stored += len(done)
        self.counts.bytes += sum(len(found.value or b"") for found, _ in done)
        self.counts.deleted += len(deleted)

    def _write(self, db: int, stored: list[Found], deleted: list[bytes]) -> dict[bytes, LeftOut]:
        """Store and delete; the keys that the target refuses for good, and why."""
        there = self._database(db)
        if self._is_unsure:
            self._target.fence(self._patience.pause)
            self._is_unsure = False
        pipeline = self._target.client(there).pipeline(raise_errors=False)
        asked = [(found, _store(pipeline, found)) for found in stored]
        gone = [pipeline.delete(key) for key in deleted]
        try:
            pipeline.run()
        except UNSURE:
            self._is_unsure = True
            raise
        for future in gone:
            future.result()
        return {found.key: _refusal(found, error) for found, future in asked if (error := future.error()) is not None}


def _store(pipeline: Pipeline, found: Found) -> Future[object]:
    """Add the command that stores a key."""
    value = found.value or b""
    if found.kind != STRING:
        return pipeline.execute("RESTORE", found.key, found.deadline or 0, value, "REPLACE", "ABSTTL")  # type: ignore[return-value]
    words = () if found.deadline is None else ("PXAT", found.deadline)
    return pipeline.execute("SET", found.key, value, *words)  # type: ignore[return-value]


def _refusal(found: Found, error: Exception) -> LeftOut:
    """Why a key is left out.

    Raises:
        KVError: the error is not about this key, or passes.
    """
    if isinstance(error, (*PASSING, AuthError)) or not isinstance(error, ServerError):
        raise error
    return LeftOut(found.kind.decode("utf-8", "replace"), str(error))
