"""What a migration does next, and what is to become of one key. Without input or output.

The order is: walk all keys; check those that were copied before, if some may have been deleted unheard; then settle,
which is to hear of every change made so far, and copy what changed; and again, until little or nothing changes. A key
that changed is only a name here: it is read anew when its turn comes, so what is copied is never older than that.

Not here: servers, files, and the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

BATCH: Final = 500  # keys that are read together
MOST_CHANGED: Final = 100_000  # changed keys that wait while the walk goes on
FEW: Final = 1000  # changed keys in a round, with which a migration may end while programs still write
_LEAST_ROUNDS: Final = 3
_MOST_ROUNDS: Final = 20


class Place(NamedTuple):
    """Where keys are walked: the address of a node of the source, and the number of a database."""

    node: str
    db: int


class Row(NamedTuple):
    """What was copied of a key: a digest of it (None: a copy was begun), and its end of life in ms since 1970."""

    digest: bytes | None
    deadline: int | None


@dataclass(frozen=True)
class Walk:
    """Read a page of keys at a place, and copy them."""

    place: Place
    cursor: int


@dataclass(frozen=True)
class Check:
    """Look for keys that were copied and are gone: those in the ledger after this one."""

    after: tuple[int, bytes] | None


@dataclass(frozen=True)
class Copy:
    """Copy these keys, in whatever database they are."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True)
class Settle:
    """Hear of every change made so far."""


@dataclass(frozen=True)
class Wait:
    """All is copied; wait for a change."""


@dataclass(frozen=True)
class Done:
    """All is copied that had changed when it was last settled: so many keys, so programs still write unless it is 0."""

    still: int


Step: TypeAlias = Walk | Check | Copy | Settle | Wait | Done


class Plan:
    """What there is to do.

    Args:
        follow: whether to go on after all is copied, until stop().

    Attributes:
        is_complete: whether all was copied once.
    """

    def __init__(self, *, follow: bool = False) -> None:
        self._follow = follow
        self._walks: dict[Place, int] = {}
        self._checks = False
        self._checked: tuple[int, bytes] | None = None
        self._changed: set[bytes] = set()
        self._round: list[bytes] = []  # what is copied now; what changes meanwhile waits for the next round
        self._rounds = 0
        self._last: int | None = None  # how many keys had changed when it was last settled; None: it has to be
        self.is_complete = False

    @property
    def follows(self) -> bool:
        """Whether it goes on after all is copied."""
        return self._follow

    @property
    def waiting(self) -> int:
        """How many changed keys wait to be copied."""
        return len(self._changed) + len(self._round)

    @property
    def has_missed(self) -> bool:
        """Whether changes may have been missed, and are looked for."""
        return bool(self._walks) or self._checks

    def has_changed(self, key: bytes) -> bool:
        """Whether a key has changed and waits to be copied."""
        return key in self._changed or key in self._round

    # ---- news ----------------------------------------------------------------------------------------------------

    def walk(self, places: Iterable[Place]) -> None:
        """These are to be walked, from the beginning."""
        self._walks.update(dict.fromkeys(places, 0))
        self.again()

    def check(self) -> None:
        """Keys that were copied may have been deleted unheard, as after FLUSHALL."""
        self._checks, self._checked = True, None
        self.again()

    def missed(self, places: Iterable[Place]) -> None:
        """Changes at these places may have been missed."""
        self.walk(places)
        self.check()

    def tell(self, keys: Iterable[bytes]) -> None:
        """These keys have changed."""
        self._changed.update(keys)
        if self._last == 0:
            self._last = None

    def stop(self) -> None:
        """Follow no longer: end when all is copied."""
        self._follow = False
        self.again()

    def forget(self) -> None:
        """Whatever was told so far is of no account."""
        self._walks, self._checks, self._changed, self._round = {}, False, set(), []

    def again(self) -> None:
        """Settle before it ends, whatever is known."""
        self._last, self._rounds = None, 0

    # ---- what was done -------------------------------------------------------------------------------------------

    def walked(self, place: Place, cursor: int) -> None:
        """A page was copied; the cursor is that of the next, 0 if there is none."""
        if cursor:
            self._walks[place] = cursor
        else:
            self._walks.pop(place, None)
        if len(self._changed) >= MOST_CHANGED:  # after a page, so that the walk goes on whatever changes
            self._begin_round()

    def checked(self, last: tuple[int, bytes] | None) -> None:
        """The ledger was checked up to this key; None: to its end."""
        self._checked = last
        self._checks = last is not None

    def settled(self) -> None:
        """Every change made until now has been told."""
        self._begin_round()
        self._last = len(self._round)
        self._rounds += 1

    def _begin_round(self) -> None:
        self._round, self._changed = [*self._round, *self._changed], set()

    # ---- what comes next -----------------------------------------------------------------------------------------

    def next(self) -> Step:
        """What to do now."""
        if self._round:
            keys, self._round = tuple(self._round[:BATCH]), self._round[BATCH:]
            self._changed.difference_update(keys)  # whatever was told of them is older than what will be read
            return Copy(keys)
        for place, cursor in self._walks.items():
            return Walk(place, cursor)
        if self._checks:
            return Check(self._checked)
        if self._last is None:
            return Settle()
        return self._at_rest(self._last)

    def _at_rest(self, changed: int) -> Step:
        """Nothing is left to copy of what had changed when it was settled."""
        is_little = self._rounds >= _MOST_ROUNDS or (self._rounds >= _LEAST_ROUNDS and changed <= FEW)
        if changed and not is_little:
            self._last = None
            return Settle()
        self.is_complete = True
        if not self._follow:
            return Done(changed)
        if changed:
            self._last = None
            return Settle()
        return Wait()


class Verdict(Enum):
    """What is to become of a key at the target."""

    LEAVE = auto()  # it is there already, or was never copied
    STORE = auto()
    DELETE = auto()
    FORGET = auto()  # it has ended by itself, and so has the copy


def judge(digest: bytes | None, deadline: int | None, row: Row | None, now: int, tolerance: int) -> Verdict:
    """What is to become of a key, by what it is at the source and what was copied of it.

    A key that has not changed since it was copied is left alone, since the target's may be newer. One that has ended
    at its time is not deleted there either: the copy ends at the same time, unless a program has made it live longer.

    Args:
        digest: of what is at the source; None if there is no such key.
        deadline: when it ends, in ms since 1970; None for never.
        row: what was copied, if it ever was.
        now: the source's time in ms since 1970.
        tolerance: by how much two readings of the same deadline may differ, in ms.
    """
    if digest is None:
        if row is None:
            return Verdict.LEAVE
        return Verdict.FORGET if row.deadline is not None and row.deadline <= now else Verdict.DELETE
    if row is None or row.digest != digest:
        return Verdict.STORE
    return Verdict.LEAVE if close(deadline, row.deadline, tolerance) else Verdict.STORE


def close(one: int | None, other: int | None, tolerance: int) -> bool:
    """Whether two deadlines are the same, within so many ms."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= tolerance


class Rate:
    """How fast keys may be copied.

    Args:
        most: keys a second; None for as fast as it goes.
    """

    def __init__(self, most: float | None) -> None:
        self._most = most
        self._free = 0.0

    def pause(self, count: int, now: float) -> float:
        """So many keys are about to be copied; how many seconds to wait before."""
        if self._most is None:
            return 0.0
        begin = max(self._free, now)
        self._free = begin + count / self._most
        return begin - now
