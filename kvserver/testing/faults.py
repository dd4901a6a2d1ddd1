"""Faults that a test asks for: refusals, delays, lost connections, cut replies, a full disk, a slow one.

Each is a rule: for which command and keys, how often, after how many. Chance is seeded, so the same test has the same
faults each time. A rule that nothing has met is a mistake of the test's, and :meth:`Faults.check` says so.

Locking: the rules, and what has met them, are guarded by one lock. It is held for no longer than to look; nobody waits
with it.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from kvserver import errors
from kvserver.commands.registry import COMMANDS, Command, find, key_places
from kvserver.protocol.encoder import encoding
from kvserver.protocol.replies import Error, Raw, Reply
from kvserver.session import Session
from kvserver.store.glob import compile_glob

Run = Callable[[Session, list[bytes]], Reply]
Refuse = Callable[[Session, list[bytes], Error], object]

_TEXTS = {
    "OOM": errors.MAXMEMORY,
    "LOADING": errors.LOADING,
    "READONLY": "READONLY You can't write against a read only replica.",
    "MISCONF": "MISCONF Errors writing to the AOF file: No space left on device",
    "NOAUTH": errors.NO_AUTH,
    "BUSY": "BUSY the server is busy: try again",
}
"""What a refusal says that is named by its code alone."""


class UnmetFaultError(AssertionError):
    """A rule that nothing has met."""


class Kind(Enum):
    """What a rule does."""

    REFUSE = "refuse"
    DELAY = "delay"
    DROP = "drop"
    CUT = "cut"
    FILL = "fill_disk"
    SLOW = "slow_sync"


@dataclass(eq=False)
class Rule:
    """One fault, and how often it has happened.

    Attributes:
        seen: commands of its name so far, whatever their keys.
        met: commands that it is for, by name and key.
        happened: faults.
    """

    kind: Kind
    command: bytes  # in upper case; * for all that work on data
    key: bytes | None
    times: int | None
    after: int
    chance: float
    dice: random.Random
    text: str = ""
    seconds: float = 0.0
    size: int = 0
    applied: bool = False
    seen: int = field(default=0, init=False)
    met: int = field(default=0, init=False)
    happened: int = field(default=0, init=False)
    _struck: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    def wait(self, timeout: float = 10.0) -> bool:
        """Wait until it has happened; whether it has within ``timeout`` seconds."""
        return self._struck.wait(timeout)

    def __str__(self) -> str:
        words = [self.kind.value, self.command.decode("utf-8", "replace")]
        words += [] if self.key is None else [f"key={self.key.decode('utf-8', 'replace')}"]
        words += [f"after={self.after}"] if self.after else []
        return " ".join(filter(None, words))

    @property
    def is_met(self) -> bool:
        """Whether it has had its turn, though chance may have been against it."""
        return self.met > self.after

    def strikes(self, entry: Command, words: Sequence[bytes]) -> bool:
        """Whether a command is to have this fault. The lock of the rules is held."""
        if not self._is_for(entry):
            return False
        self.seen += 1
        if self.key is not None and not self._has_key(entry, words):
            return False
        self.met += 1
        return self.happens()

    def happens(self) -> bool:
        """Whether it is this rule's turn now, and chance is for it."""
        if not self.is_met or (self.times is not None and self.happened >= self.times):
            return False
        if self.chance < 1 and self.dice.random() >= self.chance:
            return False
        self.strike()
        return True

    def strike(self) -> None:
        """Count that it has happened."""
        self.happened += 1
        self._struck.set()

    def _is_for(self, entry: Command) -> bool:
        if self.command == b"*":
            return entry.on_database
        return self.command == _full_name(entry)

    def _has_key(self, entry: Command, words: Sequence[bytes]) -> bool:
        assert self.key is not None
        if not entry.minimum <= len(words) <= entry.maximum:
            return False
        matches = compile_glob(self.key)
        try:
            return any(matches(words[place]) for place in key_places(entry, words))
        except Error:
            return False


class Faults:
    """The rules of one server. Any thread may add some, at any time.

    Every rule is for a command by its name (``"CLIENT ID"`` with its subcommand), or for ``"*"``, all commands that
    work on data; and for a glob pattern of keys, if one is given. It leaves out the first ``after`` commands that it is
    for, then strikes ``times`` times (None: always), each with a ``chance`` from 0 to 1. Within a transaction a command
    meets it when it is queued.

    Args:
        seed: what chance begins with; the same seed and the same commands make the same faults.
    """

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._seed = seed
        self._made = 0  # rules so far
        self._cleared = threading.Event()  # set by clear(): a disk that is slow on purpose goes on
        self._delayed: set[int] = set()  # clear() closes these ends of pipes: whoever is held up goes on
        self._disk: Callable[[], bool] = lambda: False  # whether the server has one
        self.rules: tuple[Rule, ...] = ()  # replaced as a whole, so read without the lock

    # What a test says

    def refuse(
        self, command: str, error: str = "OOM", *, key: str | bytes | None = None, times: int | None = 1,
        after: int = 0, chance: float = 1.0,
    ) -> Rule:  # fmt: skip
        """Answer with an error, and do not run the command.

        Args:
            command: its name, or ``*``.
            error: ``OOM``, ``READONLY``, ``LOADING``, ``MISCONF``, ``NOAUTH`` or ``BUSY``; or a whole text, which
                begins with a code.
            key: a glob pattern that one of its keys has to match.
            times: how often; None for always.
            after: how many to leave alone before.
            chance: from 0 to 1.

        Raises:
            ValueError: there is no such command, or it makes no sense.
        """
        text = _TEXTS.get(error, error)
        if " " not in text:
            raise ValueError(f"{error!r} is neither one of {', '.join(_TEXTS)} nor a text as 'ERR something'")
        return self._add(Kind.REFUSE, command, key, times, after, chance, text=text)

    def delay(
        self, command: str, seconds: float, *, key: str | bytes | None = None, times: int | None = 1,
        after: int = 0, chance: float = 1.0,
    ) -> Rule:  # fmt: skip
        """Wait before the command is run; other clients do not wait. For the rest see :meth:`refuse`."""
        return self._add(Kind.DELAY, command, key, times, after, chance, seconds=seconds)

    def drop(
        self, command: str, *, applied: bool, key: str | bytes | None = None, times: int | None = 1,
        after: int = 0, chance: float = 1.0,
    ) -> Rule:  # fmt: skip
        """Close the connection without a reply: after the command has been run, or before. For the rest see ``refuse``.

        Replies to commands sent together with it that have not left yet are lost, too.
        """
        return self._add(Kind.DROP, command, key, times, after, chance, applied=applied)

    def cut(
        self, command: str, size: int, *, key: str | bytes | None = None, times: int | None = 1,
        after: int = 0, chance: float = 1.0,
    ) -> Rule:  # fmt: skip
        """Run the command, send ``size`` bytes of its reply, and close the connection. For the rest see ``refuse``."""
        return self._add(Kind.CUT, command, key, times, after, chance, size=size)

    def fill_disk(self, *, room: int = 0) -> Rule:
        """Have the disk take ``room`` more bytes of the journal, and then no more until :meth:`clear`.

        With ``fsync = always`` the server ends then, as it must; otherwise it refuses writes.

        Raises:
            ValueError: the server keeps nothing on disk.
        """
        return self._add_for_disk(Kind.FILL, size=room)

    def slow_sync(self, seconds: float) -> Rule:
        """Have the disk take so long for each sync of the journal, until :meth:`clear`.

        Raises:
            ValueError: the server keeps nothing on disk.
        """
        return self._add_for_disk(Kind.SLOW, seconds=seconds)

    def clear(self) -> None:
        """Forget all rules; what waits for them on a connection goes on, a direct() call waits its time."""
        with self._lock:
            self.rules = ()
            self._cleared.set()
            self._cleared = threading.Event()
            for tells in tuple(self._delayed):
                self._end_delay(tells)

    def check(self) -> None:
        """Find out rules that nothing has met.

        Raises:
            UnmetFaultError: there are some; it says which, and whether commands of their names came at all.
        """
        unmet = [f"{rule} ({_why(rule)})" for rule in self.rules if not rule.is_met]
        if unmet:
            raise UnmetFaultError(f"nothing has met {'; '.join(unmet)}")

    def _add_for_disk(self, kind: Kind, *, size: int = 0, seconds: float = 0.0) -> Rule:
        if not self._disk():
            raise ValueError("this server keeps nothing on disk: start one with data_dir")
        return self._add(kind, "", None, None, 0, 1.0, size=size, seconds=seconds)

    def _add(
        self, kind: Kind, command: str, key: str | bytes | None, times: int | None, after: int, chance: float,
        *, text: str = "", seconds: float = 0.0, size: int = 0, applied: bool = False,
    ) -> Rule:  # fmt: skip
        name = command.upper().encode("utf-8", "replace")
        if name not in (b"", b"*"):
            _check_name(command, name)
        if after < 0 or not 0 < chance <= 1 or seconds < 0 or size < 0 or (times is not None and times < 1):
            raise ValueError("times is from 1 on, chance above 0 and up to 1, and nothing is negative")
        pattern = key.encode("utf-8") if isinstance(key, str) else key
        with self._lock:
            self._made += 1
            dice = random.Random(f"{self._seed} {self._made}")  # noqa: S311 - to be the same each time
            rule = Rule(kind, name, pattern, times, after, chance, dice, text, seconds, size, applied)
            self.rules = (*self.rules, rule)
        return rule

    # What the server asks

    def run(self, session: Session, words: list[bytes], execute: Run, note_refusal: Refuse) -> Reply:
        """Run a command as ``execute`` does, with the faults it is to have; ``note_refusal`` is told if not run."""
        entry = named_in(words)
        cleared = self._cleared
        struck = [] if entry is None else self._struck(entry, words)
        for rule in struck:
            if rule.kind is Kind.DELAY:
                self._delay(session, rule.seconds, cleared)
        fault = next((rule for rule in struck if rule.kind is not Kind.DELAY), None)
        if fault is None:
            return execute(session, words)
        if fault.kind is Kind.REFUSE:
            note_refusal(session, words, Error(fault.text))
            return refused(session, words, Error(fault.text))
        if fault.kind is Kind.CUT:
            reply = execute(session, words)
            session.leaving = True
            return Raw(encoding(session.protocol)[reply.__class__](reply)[: fault.size])
        if fault.applied:
            execute(session, words)
        session.drop()
        return Raw()

    def _delay(self, session: Session, seconds: float, cleared: threading.Event) -> None:
        """Hold a client up for a time, or until the rules are cleared.

        A pipe tells, since a connection watches its socket meanwhile, which cannot be done together with an event.
        """
        told, tells = os.pipe()
        with self._lock:
            self._delayed.add(tells)
            if cleared.is_set():  # before it was there to be found
                self._end_delay(tells)
        try:
            session.wait(seconds, until=told)
        finally:
            with self._lock:
                if tells in self._delayed:
                    self._end_delay(tells)
            os.close(told)

    def _end_delay(self, tells: int) -> None:
        """The lock is held."""
        self._delayed.remove(tells)
        os.close(tells)

    def _struck(self, entry: Command, words: Sequence[bytes]) -> list[Rule]:
        with self._lock:
            return [rule for rule in self.rules if rule.strikes(entry, words)]

    def attach(self, has_disk: Callable[[], bool]) -> None:
        """Be told how to find out whether there is a disk."""
        self._disk = has_disk

    def write(self, descriptor: int, data: memoryview) -> int:
        """As os.write, for the journal.

        Raises:
            OSError: the disk is full.
        """
        with self._lock:
            for rule in self.rules:
                if rule.kind is Kind.FILL:
                    rule.met += 1
                    rule.strike()
                    if not rule.size:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    data = data[: rule.size]
                    rule.size -= len(data)
        return os.write(descriptor, data)

    def sync(self, descriptor: int, sync: Callable[[int], None]) -> None:
        """Sync as ``sync`` does, for the journal."""
        with self._lock:
            slow = [rule for rule in self.rules if rule.kind is Kind.SLOW]
            cleared = self._cleared
            for rule in slow:
                rule.met += 1
                rule.strike()
        for rule in slow:
            cleared.wait(rule.seconds)
        sync(descriptor)


def refused(session: Session, words: list[bytes], error: Error) -> Error:
    """An error in place of a command, with what that means for the transaction it is in or was to end."""
    if session.transaction is None:
        return error
    if words[0].upper() == b"EXEC":
        session.release_transaction()
        return errors.exec_aborted_by(error)
    session.transaction.aborted = True
    return error


def _check_name(command: str, name: bytes) -> None:
    """Raise ValueError unless something can be called by this name."""
    entry = named_in(name.split()) if name.split() else None
    if entry is None or _full_name(entry) != name:
        raise ValueError(f"there is no command {command}")
    if entry.subcommands:
        raise ValueError(f"{command} is called with a subcommand: name that, too, as in {command.upper()} HELP")


def _full_name(entry: Command) -> bytes:
    return entry.name.upper().replace("|", " ").encode("ascii")


def _why(rule: Rule) -> str:
    if rule.kind in (Kind.FILL, Kind.SLOW):
        return "nothing was written"
    if rule.met:
        return f"it came {rule.met} times"
    return f"it came {rule.seen} times, with other keys" if rule.seen else "it never came"


def named_in(words: Sequence[bytes]) -> Command | None:
    """The command that words name, a subcommand if they name one."""
    entry = find(COMMANDS, words[0])
    if entry is not None and entry.subcommands and len(words) > 1:
        return find(entry.subcommands, words[1]) or entry
    return entry
