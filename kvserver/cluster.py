"""What makes one server answer as a cluster: its slots, its identity, and the report of what would break in a real one.

The report counts calls by what is wrong with them and by command, with one example of each; its memory is bounded.
Which calls are wrong is decided in ``commands/slots.py``; nothing here knows commands, sessions or data.
"""

from __future__ import annotations

import secrets
import threading
from binascii import crc_hqx
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

SLOTS = 16384
"""How many slots the keys of a cluster are shared out to."""

_MOST_KINDS = 100
_MOST_WORDS = 16
_LONGEST_WORD = 128  # bytes


def slot_of(key: bytes) -> int:
    """The slot of a key: CRC-16/XMODEM of its hash tag, or of the whole key if it has none, modulo 16384."""
    begin = key.find(b"{") + 1
    if begin:
        end = key.find(b"}", begin)
        if end > begin:  # an empty tag is none
            key = key[begin:end]
    return crc_hqx(key, 0) % SLOTS


class Reason(Enum):
    """What is wrong with a call in a cluster."""

    CROSS_SLOT = "cross-slot"  # one command with keys of several slots
    TRANSACTION = "cross-slot-transaction"  # commands of one transaction with keys of several slots
    WATCH = "cross-slot-watch"  # a watched key of another slot than the transaction's
    DATABASE = "database"  # another database than 0
    COMMAND = "not-in-a-cluster"  # a command that no cluster has
    UNDECLARED = "undeclared-keys"  # a script that uses keys which it is not given as such


@dataclass(slots=True)
class Trouble:
    """Calls of one command with which the same is wrong."""

    reason: Reason
    command: str  # in lower case, a subcommand as "container|name"
    calls: int
    example: tuple[bytes, ...]  # the command and its keys, without its values; see ``_shortened``


class Report:
    """What has been noted since the start, or since it was reset. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._troubles: dict[tuple[Reason, str], Trouble] = {}
        self._left_out = 0

    def note(self, reason: Reason, command: str, example: Sequence[bytes]) -> None:
        """Count a call; the first of its kind is the example."""
        with self._lock:
            found = self._troubles.get((reason, command))
            if found is not None:
                found.calls += 1
            elif len(self._troubles) < _MOST_KINDS:
                self._troubles[reason, command] = Trouble(reason, command, 1, _shortened(example))
            else:
                self._left_out += 1

    def troubles(self) -> tuple[list[Trouble], int]:
        """Each kind, that with the most calls first; and how many calls found no room."""
        with self._lock:
            kinds = [Trouble(each.reason, each.command, each.calls, each.example) for each in self._troubles.values()]
            return sorted(kinds, key=lambda each: -each.calls), self._left_out

    def totals(self) -> dict[str, int]:
        """How many calls there were in all, and for each reason, by names for a log."""
        troubles, left_out = self.troubles()
        totals = Counter(calls=left_out)
        for each in troubles:
            totals["calls"] += each.calls
            totals[each.reason.value.replace("-", "_")] += each.calls
        return totals

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self._troubles.clear()
            self._left_out = 0


def _shortened(example: Sequence[bytes]) -> tuple[bytes, ...]:
    """At most 16 words of 128 bytes; ``...`` stands for what is cut off."""
    words = [word if len(word) <= _LONGEST_WORD else word[:_LONGEST_WORD] + b"..." for word in example[:_MOST_WORDS]]
    return (*words, b"...") if len(example) > _MOST_WORDS else tuple(words)


class Cluster:
    """The cluster that this server stands for, or is watched for.

    Args:
        emulated: whether it answers as one and refuses what a cluster refuses; otherwise that is only noted.
    """

    def __init__(self, *, emulated: bool) -> None:
        self.emulated = emulated
        self.node_id = secrets.token_hex(20)
        self.shard_id = secrets.token_hex(20)
        self.report = Report()
        self._ended = False

    def take_leave(self) -> dict[str, int] | None:
        """The report's totals, as :meth:`Report.totals`; None when it is asked again."""
        ended, self._ended = self._ended, True
        return None if ended else self.report.totals()
