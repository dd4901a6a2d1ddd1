"""Comparing both sides: every key of the source with the target's, and the target's keys with the source's.

A key that differs is compared again, and counts as different only if it was not changed at the source meanwhile. Values
are compared by SHA-256, those that are no strings by what they hold. Not here: copying.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from kvclient.errors import ServerError
from kvclient.migration.plan import BATCH, close
from kvclient.migration.reading import NONE, STRING, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kvclient.client import Client
    from kvclient.migration.copying import Patience
    from kvclient.migration.reading import Page
    from kvclient.migration.sides import Side
    from kvclient.protocol import Reply

T = TypeVar("T")
TOLERANCE: Final = 1000  # ms by which deadlines may differ
SHOWN: Final = 20  # keys that differ, of which the names are kept
_ROUNDS: Final = 5
_CONTENTS: Final[dict[bytes, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    b"list": (("LRANGE",), ("0", "-1")),
    b"set": (("SMEMBERS",), ()),
    b"hash": (("HGETALL",), ()),
    b"zset": (("ZRANGE",), ("0", "-1", "WITHSCORES")),
    b"stream": (("XRANGE",), ("-", "+")),
}
"""How everything is read that a type holds: the words before the key, and those after it."""


class Key(NamedTuple):
    """A key of a database of the source."""

    db: int
    name: bytes


class Sketch(NamedTuple):
    """What is compared of a key: its type, a digest of its value, when it ends."""

    kind: bytes
    digest: bytes
    deadline: int | None


_MISSING: Final = Sketch(NONE, b"", None)


@dataclass
class Comparison:
    """What was found.

    Attributes:
        compared: keys of the source that were compared.
        different: how many keys differ.
        examples: some of them, and how they differ.
        unsettled: keys that changed whenever they were compared.
    """

    compared: int = 0
    different: int = 0
    examples: dict[Key, str] = field(default_factory=dict)
    unsettled: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.different or self.unsettled)

    def add(self, differences: dict[Key, str]) -> None:
        """These differ."""
        self.different += len(differences)
        for key, how in differences.items():
            if len(self.examples) < SHOWN:
                self.examples[key] = how


class Verifier:
    """Compares two servers.

    Args:
        source, target: the servers.
        there: the target's number of each database of the source.
        patience: how failures are borne.
        match: the pattern that keys have to match.
    """

    def __init__(
        self, source: Side, target: Side, there: Callable[[int], int], patience: Patience, match: bytes | None
    ) -> None:
        self._source = source
        self._target = target
        self._there = there
        self._patience = patience
        self._match = match
        self._readers: dict[tuple[Side, int], Reader] = {}

    def walk(self, databases: Iterable[int], comparison: Comparison) -> dict[Key, str]:
        """Compare everything once; what differs, and how."""
        found: dict[Key, str] = {}
        for db in databases:
            for keys in self._pages(self._source, self._source.client(db)):
                comparison.compared += len(keys)
                found |= self.compare(Key(db, name) for name in keys)
            for keys in self._pages(self._target, self._target.client(self._there(db))):
                found |= self.compare(Key(db, name) for name in self._missing(db, keys))
        return found

    def again(self, found: dict[Key, str], comparison: Comparison, settle: Settling) -> None:
        """Compare again what differs, and count what differs without having been changed meanwhile."""
        for _ in range(_ROUNDS):
            if not found:
                return
            settle.catch_up()
            found = self.compare(found)
            if not settle.hear_all():
                continue
            comparison.add({key: how for key, how in found.items() if not settle.has_changed(key.name)})
            found = {key: how for key, how in found.items() if settle.has_changed(key.name)}
        comparison.unsettled += len(found)

    def _pages(self, side: Side, client: Client) -> Iterable[list[bytes]]:
        cursor = 0
        while True:
            at = cursor
            cursor, keys = self._try(side, lambda at=at: client.scan(at, match=self._match, count=BATCH))  # type: ignore[misc]
            if keys:
                yield keys
            if not cursor:
                return

    def _missing(self, db: int, keys: list[bytes]) -> list[bytes]:
        """Those of the target's keys that the source has not."""
        client = self._source.client(db)

        def ask() -> list[bytes]:
            with client.pipeline(raise_errors=False) as pipeline:
                found = [(key, pipeline.exists(key)) for key in keys]
            return [key for key, exists in found if not exists.result()]

        return self._try(self._source, ask)

    # ---- keys ------------------------------------------------------------------------------------------------------

    def compare(self, keys: Iterable[Key]) -> dict[Key, str]:
        """Those of the keys that differ, and how."""
        by_database: dict[int, list[bytes]] = {}
        for key in keys:
            by_database.setdefault(key.db, []).append(key.name)
        found: dict[Key, str] = {}
        for db, names in by_database.items():
            for start in range(0, len(names), BATCH):
                batch = names[start : start + BATCH]
                ours, theirs = (
                    self._sketches(self._source, db, batch),
                    self._sketches(self._target, self._there(db), batch),
                )
                tolerance = TOLERANCE + self._reader(self._source, db).tolerance
                for name in batch:
                    how = _difference(ours.get(name, _MISSING), theirs.get(name, _MISSING), tolerance)
                    if how is not None:
                        found[Key(db, name)] = how
        return found

    def _reader(self, side: Side, db: int) -> Reader:
        return self._readers.setdefault((side, db), Reader(side.client(db), dumps=False))

    def _sketches(self, side: Side, db: int, keys: Sequence[bytes]) -> dict[bytes, Sketch]:
        """What is compared of each key that there is."""
        reader = self._reader(side, db)
        groups, others, _ = self._try(side, lambda: reader.sizes(keys))
        sketches: dict[bytes, Sketch] = {}
        for group in groups:
            page: Page = self._try(side, lambda group=group: reader.strings(group))  # type: ignore[misc]
            others += page.others
            for each in page.found:
                if each.kind == STRING:
                    sketches[each.key] = Sketch(STRING, hashlib.sha256(each.value or b"").digest(), each.deadline)
        if others:
            for each in self._try(side, lambda: reader.others(others)).found:
                digest = self._try(side, lambda each=each: _digest_of(side.client(db), each.kind, each.key))  # type: ignore[misc]
                if each.kind != NONE:
                    sketches[each.key] = Sketch(each.kind, digest, each.deadline)
        return sketches

    def _try(self, side: Side, action: Callable[[], T]) -> T:
        return self._patience.keep_trying(side, action)


class Settling(Protocol):
    """Knows of changes; a migration does."""

    def catch_up(self) -> None:
        """Copy what has changed, if that is wanted, and hear of all changes until now."""
        raise NotImplementedError

    def hear_all(self) -> bool:
        """Hear of all changes until now; whether none can have been missed since catch_up()."""
        raise NotImplementedError

    def has_changed(self, name: bytes) -> bool:
        """Whether a key has changed since catch_up()."""
        raise NotImplementedError


def _difference(ours: Sketch, theirs: Sketch, tolerance: int) -> str | None:
    """How two keys differ; None if they do not."""
    if ours.kind != theirs.kind:
        if theirs.kind == NONE:
            return "missing at the target"
        return "only at the target" if ours.kind == NONE else "of another type"
    if ours.digest != theirs.digest:
        return "another value"
    return None if close(ours.deadline, theirs.deadline, tolerance) else "another end of life"


def _digest_of(client: Client, kind: bytes, key: bytes) -> bytes:
    """A digest of all that a value holds that is no string; of nothing, for a type of which nothing is known here."""
    if kind not in _CONTENTS:
        return b""
    before, after = _CONTENTS[kind]
    try:
        reply = client.execute(*before, key, *after)
    except ServerError as error:
        if error.code == "WRONGTYPE":  # it has changed meanwhile
            return b"?"
        raise
    return hashlib.sha256(_canonical(reply)).digest()


def _canonical(reply: Reply) -> bytes:
    """A reply as bytes, the same whatever order a set or a map came in."""
    if isinstance(reply, dict):
        return b"{%b}" % b",".join(sorted(_canonical(key) + b":" + _canonical(value) for key, value in reply.items()))
    if isinstance(reply, set | frozenset):
        return b"<%b>" % b",".join(sorted(map(_canonical, reply)))
    if isinstance(reply, list | tuple):
        return b"[%b]" % b",".join(map(_canonical, reply))
    data = reply if isinstance(reply, bytes) else repr(reply).encode()
    return b"%d=%b" % (len(data), data)
