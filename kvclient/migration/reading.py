"""Reading keys: sizes first, then values in groups of a few megabytes, each with its end of life.

A value and its deadline are read one after the other. If the key changes in between, the news of that comes later, and
the key is read again. Not here: what is done with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from kvclient.errors import ServerError, UnknownCommandError, WrongTypeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kvclient.client import Client
    from kvclient.commands.base import Future
    from kvclient.pipeline import Pipeline
    from kvclient.protocol import Reply

GROUP_BYTES: Final = 4 * 1024 * 1024  # a larger value is a group by itself
STRING: Final = b"string"
NONE: Final = b"none"
_UNWEIGHED: Final = GROUP_BYTES // 32  # taken for the size of what the server does not weigh


class Found(NamedTuple):
    """A key as it is.

    Attributes:
        key: its name.
        kind: the type's name, b"none" if there is no such key.
        value: a string's value, or what DUMP gives; None if there is none, or it was not asked for.
        deadline: when it ends, in ms since 1970; None for never.
    """

    key: bytes
    kind: bytes
    value: bytes | None
    deadline: int | None


class Page(NamedTuple):
    """Keys that were read together.

    Attributes:
        now: the server's time then, in ms since 1970.
        found: the keys.
        others: those whose values are no strings, which are to be read by others().
    """

    now: int
    found: list[Found]
    others: list[bytes]


class Reader:
    """Reads keys of one database.

    Args:
        client: of the database.
        dumps: whether values that are no strings are read too.
    """

    def __init__(self, client: Client, *, dumps: bool) -> None:
        self._client = client
        self._dumps = dumps
        self._is_exact = True  # whether the server tells deadlines, or only how long it is until then

    @property
    def tolerance(self) -> int:
        """By how many ms two readings of the same deadline may differ."""
        return 0 if self._is_exact else 2000

    def sizes(self, keys: Sequence[bytes]) -> tuple[list[list[bytes]], list[bytes], int]:
        """Keys in groups to be read together, those that are no strings, and how many bytes the strings are."""
        pipeline = self._client.pipeline(raise_errors=False)
        asked = [(key, pipeline.strlen(key)) for key in keys]
        pipeline.run()
        others = [key for key, size in asked if isinstance(size.error(), WrongTypeError)]
        sizes = [(key, size.result()) for key, size in asked if not isinstance(size.error(), WrongTypeError)]
        return grouped(sizes), others, sum(size for _, size in sizes)

    def strings(self, keys: Sequence[bytes]) -> Page:
        """Read these, which are strings or were just now."""
        pipeline = self._client.pipeline(raise_errors=False)
        clock = pipeline.time()
        asked = [(key, pipeline.get(key), self._ask_deadline(pipeline, key)) for key in keys]
        pipeline.run()
        if self._has_to_ask_otherwise(end for *_, end in asked):
            return self.strings(keys)
        now = _milliseconds(clock)
        found: list[Found] = []
        others: list[bytes] = []
        for key, value, end in asked:
            if isinstance(value.error(), WrongTypeError):
                others.append(key)
            else:
                found.append(self._found(key, STRING, value.result(), end.result(), now))
        return Page(now, found, others)

    def weigh(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """Keys that are no strings in groups to be read together."""
        if not self._dumps:
            return [list(keys)] if keys else []
        pipeline = self._client.pipeline(raise_errors=False)
        asked = [(key, pipeline.execute("MEMORY", "USAGE", key)) for key in keys]
        pipeline.run()
        return grouped([(key, _weight(size)) for key, size in asked])

    def others(self, keys: Sequence[bytes]) -> Page:
        """Read these, which were no strings just now."""
        pipeline = self._client.pipeline(raise_errors=False)
        clock = pipeline.time()
        asked = [
            (key, pipeline.type(key), self._ask_dump(pipeline, key), self._ask_deadline(pipeline, key)) for key in keys
        ]
        pipeline.run()
        if self._has_to_ask_otherwise(end for *_, end in asked):
            return self.others(keys)
        now = _milliseconds(clock)
        found: list[Found] = []
        for key, kind, dump, end in asked:
            if kind.result() == STRING:  # it has changed meanwhile, and that will be told
                continue
            value = b"" if dump is None else dump.result()
            found.append(
                self._found(key, kind.result(), value if isinstance(value, bytes) else None, end.result(), now)
            )
        return Page(now, found, [])

    def _ask_dump(self, pipeline: Pipeline, key: bytes) -> Future[Reply] | None:
        return pipeline.execute("DUMP", key) if self._dumps else None

    def _ask_deadline(self, pipeline: Pipeline, key: bytes) -> Future[int]:
        return pipeline.pexpiretime(key) if self._is_exact else pipeline.pttl(key)

    def _has_to_ask_otherwise(self, ends: Iterable[Future[int]]) -> bool:
        """Whether the server was asked for deadlines and does not know the question, as Redis before 7."""
        if self._is_exact and any(isinstance(end.error(), UnknownCommandError) for end in ends):
            self._is_exact = False
            return True
        return False

    def _found(self, key: bytes, kind: bytes, value: bytes | None, end: int, now: int) -> Found:
        if value is None or kind == NONE or end == -2:
            return Found(key, NONE, None, None)
        if end < 0:
            return Found(key, kind, value, None)
        return Found(key, kind, value, end if self._is_exact else now + end)


def grouped(sizes: Iterable[tuple[bytes, int]]) -> list[list[bytes]]:
    """Keys in groups of at most GROUP_BYTES, a larger one by itself."""
    groups: list[list[bytes]] = []
    room = 0
    for key, size in sizes:
        if not groups or size > room:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(key)
        room -= size
    return groups


def _milliseconds(clock: Future[tuple[int, int]]) -> int:
    seconds, microseconds = clock.result()
    return seconds * 1000 + microseconds // 1000


def _weight(size: Future[Reply]) -> int:
    """What MEMORY USAGE has said; None for a key that is gone, an error where that is not permitted."""
    if isinstance(size.error(), ServerError):
        return _UNWEIGHED
    found = size.result()
    return found if isinstance(found, int) else 0
