"""What each command has cost: how often it ran, how long it took, how that is distributed.

Each connection counts for itself, without a lock; reading adds the live connections and what ended ones left behind.
A duration reaches from the end of the connection's command before (or from the arrival of the bytes) to the end of this
one: decoding, waiting for the lock and for other threads included, since that is what its client waits for. Of several
equal commands that were run together each counts as if all had taken the same time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvserver.commands.registry import Command

TOTAL = 0
"""The place of the summed nanoseconds in a tally; the place ``1 + n`` counts durations of n bits in microseconds."""
_PLACES = 44

Tally = list[int]


def new_tally() -> Tally:
    """Nothing so far."""
    return [0] * _PLACES


def tally_of(used: dict[Command, Tally], command: Command) -> Tally:
    """The tally of a command in what a connection has used, which gets one if it has none."""
    return used.get(command) or used.setdefault(command, new_tally())


def calls(tally: Tally) -> int:
    """How many durations a tally holds."""
    return sum(tally[1:])


def histogram(tally: Tally) -> dict[int, int]:
    """Microseconds, as powers of two, to how many calls took no longer: each that some call added to."""
    found, seen = {}, 0
    for bits, count in enumerate(tally[1:]):
        if count:
            seen += count
            found[1 << bits] = seen
    return found


def percentile(tally: Tally, percent: float) -> float:
    """The microseconds that ``percent`` of the calls did not exceed, to a factor of two."""
    wanted = calls(tally) * percent / 100
    return float(next((limit for limit, seen in histogram(tally).items() if seen >= wanted), 0))


class Usage:
    """What ended connections have used, and what was refused or failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: dict[Command, Tally] = {}
        self._rejected: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def reject(self, command: Command) -> None:
        """Count a call that was not run: wrong arguments, or not allowed."""
        with self._lock:
            self._rejected[command.name] += 1

    def fail(self, command: Command) -> None:
        """Count a call that ended in an error."""
        with self._lock:
            self._failed[command.name] += 1

    def retire(self, used: dict[Command, Tally]) -> None:
        """Add what a connection that has ended used."""
        with self._lock:
            _add(self._ended, used)

    def total(self, live: Iterable[dict[Command, Tally]]) -> dict[str, Tally]:
        """By command name, of all connections, live ones given."""
        with self._lock:
            total: dict[Command, Tally] = {command: list(tally) for command, tally in self._ended.items()}
        for used in live:
            _add(total, used.copy())  # its owner may be adding a command just now
        return {command.name: tally for command, tally in total.items()}

    def refused(self) -> tuple[Counter[str], Counter[str]]:
        """Rejected and failed calls by command name."""
        with self._lock:
            return self._rejected.copy(), self._failed.copy()

    def reset(self, live: Iterable[dict[Command, Tally]]) -> None:
        """Begin anew. What a live connection counts at this moment may be lost or kept."""
        with self._lock:
            self._ended.clear()
            self._rejected.clear()
            self._failed.clear()
        for used in live:
            used.clear()


def _add(total: dict[Command, Tally], used: dict[Command, Tally]) -> None:
    for command, tally in used.items():
        into = total.setdefault(command, new_tally())
        for place, count in enumerate(tally):
            into[place] += count
