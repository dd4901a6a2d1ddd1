"""What the server did lately: a sample a second, from counters that are kept anyway; and how late a thread gets to run.

A thread of its own takes the samples and keeps those of some minutes, so that whoever opens the page sees what has
just been. Those who watch wait for the next sample with its condition's lock, which is held for a look alone.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvserver.observe import usage
from kvserver.observe.info import memory_resident
from kvserver.observe.log import get_logger
from kvserver.observe.usage import Tally
from kvserver.threads import pin_thread

if TYPE_CHECKING:
    from kvserver.state import State

KEPT = 300
"""Samples: five minutes of them."""
_EVERY = 1.0
_SHARE = 20
"""A sample may cost one part in so many of a CPU: with very many connections they are taken less often."""
_TICK = 0.1
DELAYS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper bounds, in seconds, by which delays are counted."""
_RATES = ("commands", "hits", "misses", "received", "sent", "evicted", "expired", "errors", "connections")


@dataclass(frozen=True, slots=True)
class CommandUse:
    """What a command did between two samples: calls a second, microseconds of them, and their share of all time."""

    name: str
    rate: float
    mean: float
    p50: float
    p99: float
    share: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment. ``values`` has gauges, and rates a second since the sample before."""

    number: int
    values: dict[str, float]
    commands: list[CommandUse]


class Delays:
    """How late a thread that wanted to run every tenth of a second got to run, counted by :data:`DELAYS`."""

    def __init__(self) -> None:
        self.counts = [0] * (len(DELAYS) + 1)
        self.total = 0.0
        self.worst = 0.0  # since it was last asked for

    def add(self, seconds: float) -> None:
        """Count one. By one thread alone."""
        self.counts[bisect_left(DELAYS, seconds)] += 1
        self.total += seconds
        self.worst = max(self.worst, seconds)

    def take_worst(self) -> float:
        """The longest since the last call."""
        worst, self.worst = self.worst, 0.0
        return worst


class Sampler:
    """Takes samples from ``start`` until the server stops."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._changed = threading.Condition()
        self._samples: deque[Sample] = deque(maxlen=KEPT)  # guarded by _changed, as is the next
        self._ended = False
        self.delays = Delays()
        self._thread = threading.Thread(target=self._run, name="kvserver-web-sampler")
        self._number = 0
        self._before: tuple[float, dict[str, float], dict[str, Tally]] = (0.0, {}, {})
        self._cpu = time.process_time()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread; ``state.stopping`` has been set."""
        if self._thread.ident is not None:
            self._thread.join()

    def samples(self) -> list[Sample]:
        """Those that are kept, oldest first."""
        with self._changed:
            return list(self._samples)

    def after(self, number: int, seconds: float) -> Sample | None:
        """The newest sample, once it is newer than ``number``; None when none came in time.

        Raises:
            EOFError: there will be no more.
        """

        def is_new() -> bool:
            return self._ended or bool(self._samples and self._samples[-1].number > number)

        with self._changed:
            if not self._changed.wait_for(is_new, seconds):
                return None
            if self._ended:
                raise EOFError
            return self._samples[-1]

    # The thread

    def _run(self) -> None:
        # On the CPU of those who serve: it is their wait that is to be seen.
        pin_thread(self._state.config.pin_threads)
        self._before = time.monotonic(), self._totals(), self._state.command_usage()
        due = time.monotonic() + _EVERY
        try:
            while not self._wait_a_tick():
                began = time.monotonic()
                if began >= due:
                    self._try_to_take(began)
                    ended = time.monotonic()
                    due = ended + max(_EVERY - (began - due), _SHARE * (ended - began))
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _try_to_take(self, now: float) -> None:
        try:
            self._take(now)
        except Exception as error:  # noqa: BLE001 - one sample less, and the next may be taken again
            get_logger().error("web.sample_failed", exception=type(error).__name__)

    def _wait_a_tick(self) -> bool:
        """Wait, and count how much longer than asked for that took; whether the server stops."""
        wanted = time.monotonic() + _TICK
        stopped = self._state.stopping.wait(_TICK)
        if not stopped:
            self.delays.add(max(0.0, time.monotonic() - wanted))
        return stopped

    def _take(self, now: float) -> None:
        then, before, used_before = self._before
        totals, used = self._totals(), self._state.command_usage()
        self._before = now, totals, used
        elapsed = now - then
        since = {name: _since(tally, used_before.get(name)) for name, tally in used.items()}
        values = self._gauges(elapsed)
        # A counter that was set back begins anew.
        values |= {name: max(0.0, totals[name] - before[name]) / elapsed for name in _RATES}
        everything = [sum(places) for places in zip(*since.values(), strict=True)] or usage.new_tally()
        values |= {name: estimate(everything, percent) for name, percent in (("p50", 50), ("p99", 99), ("p999", 99.9))}
        commands = _by_command(since, elapsed)
        self._number += 1
        with self._changed:
            rounded = {name: round(value, 6) for name, value in values.items()}
            self._samples.append(Sample(self._number, rounded, commands))
            self._changed.notify_all()

    def _totals(self) -> dict[str, float]:
        state = self._state
        counted, keyspace, stats = state.counted(), state.keyspace, state.stats
        return {
            "commands": counted["commands"],
            "received": counted["received"],
            "sent": counted["sent"],
            "hits": keyspace.hits,
            "misses": keyspace.misses,
            "expired": keyspace.expired,
            "evicted": keyspace.eviction.evicted,
            "errors": stats.errors.total(),
            "connections": stats.connections,
        }

    def _gauges(self, elapsed: float) -> dict[str, float]:
        state, keyspace = self._state, self._state.keyspace
        with keyspace.lock:
            used = keyspace.used
            keys = sum(len(database.values) for database in keyspace.databases)
            expires = sum(len(database.deadlines) for database in keyspace.databases)
        cpu = time.process_time()
        busy, self._cpu = cpu - self._cpu, cpu
        journal = None if state.persistence is None else state.persistence.journal
        return {
            "time": state.clock(),
            "memory": used,
            "resident": memory_resident(),
            "clients": len(state.clients),
            "keys": keys,
            "expires": expires,
            "cpu": 100 * busy / elapsed,
            "lag": 0 if journal is None else journal.appended - journal.synced,
            "behind": 0.0 if journal is None else journal.behind,
            "delay": self.delays.take_worst(),
        }


def _since(tally: Tally, before: Tally | None) -> Tally:
    if before is None or before[usage.TOTAL] > tally[usage.TOTAL]:
        return tally
    return [new - old for new, old in zip(tally, before, strict=True)]


def _by_command(since: dict[str, Tally], elapsed: float) -> list[CommandUse]:
    """The commands that ran, those that took most time first."""
    spent = sum(tally[usage.TOTAL] for tally in since.values()) or 1
    used = [
        CommandUse(
            name,
            calls / elapsed,
            tally[usage.TOTAL] / 1000 / calls,
            estimate(tally, 50),
            estimate(tally, 99),
            tally[usage.TOTAL] / spent,
        )
        for name, tally in since.items()
        if (calls := usage.calls(tally)) > 0
    ]
    return sorted(used, key=lambda each: -each.share)


def estimate(tally: Tally, percent: float) -> float:
    """The microseconds that ``percent`` of the calls did not exceed, as if calls were spread evenly between bounds."""
    wanted, seen = usage.calls(tally) * percent / 100, 0
    for bits, count in enumerate(tally[1:]):
        if count > 0 and seen + count >= wanted:
            upper = float(1 << bits)
            lower = upper / 2 if bits else 0.0
            return lower + (upper - lower) * (wanted - seen) / count
        seen += count
    return 0.0
