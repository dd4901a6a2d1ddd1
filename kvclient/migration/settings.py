"""What a migration is asked for, how it ends, and who is shown how it goes. Not here: doing it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from kvclient.migration.copying import Counts
    from kvclient.migration.verifying import Comparison
    from kvclient.url import Options


class MigrationError(Exception):
    """It cannot go on, or must not begin; one line says why and what to do."""


class StoppedError(Exception):
    """Somebody has stopped it before all was copied."""


class Viewer(Protocol):
    """Who is shown how it goes."""

    def say(self, text: str, /) -> None:
        """Something to know, in a line."""

    def progress(self, done: int, total: int, waiting: int, /) -> None:
        """So many keys of so many are walked, and so many changed ones wait."""


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Attributes:
        source, target: the servers.
        databases: from numbers at the source to numbers at the target; empty for all, each to its own.
        match: the pattern that keys have to match; None for all.
        follow: whether to go on after all is copied, until stop().
        rate: keys a second at most.
        timeout: seconds for which a server may be away or full.
        state: the file by which it can go on where it ended.
        into_existing: whether the target may hold keys.
        is_dry: only count.
        verify: compare both servers at the end.
        only_verify: compare them, and copy nothing.
    """

    source: Options
    target: Options
    databases: dict[int, int] = field(default_factory=dict)
    match: bytes | None = None
    follow: bool = False
    rate: float | None = None
    timeout: float = 60.0
    state: Path | None = None
    into_existing: bool = False
    is_dry: bool = False
    verify: bool = False
    only_verify: bool = False


@dataclass
class Outcome:
    """How it ended.

    Attributes:
        counts: what was done.
        still_changing: keys that changed in the last round before it ended: programs still write.
        missing_databases: databases that the target does not have, with the number of keys in them.
        doubts: what may be wrong at the target, in lines.
        comparison: what was found when both were compared; None if they were not.
    """

    counts: Counts
    still_changing: int = 0
    missing_databases: dict[int, int] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    comparison: Comparison | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all was copied, and nothing found that differs."""
        is_equal = self.comparison is None or self.comparison.is_equal
        return is_equal and not (self.counts.left_out or self.missing_databases or self.doubts)
