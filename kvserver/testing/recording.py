r"""What clients sent and what they were answered, in the order of the effects; kept in a file; and run again.

The file has a JSON object a line: first ``{"kvserver-recording": 1}``, then one for each command:

    {"at": 1763900000000, "client": 3, "db": 0, "resp": 3, "command": ["SET", "k", "v"], "reply": "+OK\r\n"}

``at`` is the server's time in milliseconds, ``client`` tells connections apart, ``resp`` is the protocol version that
the reply is in, as bytes of it. A string of bytes is text if it is UTF-8, otherwise ``{"base64": "..."}``. Commands
about data, transactions and scripts are recorded, and publishing. Those about connections are not, so no password is
ever in a file, and each line says its database; but keys and values are.

Within a transaction every command has its place in EXEC's reply. SELECT is recorded there; a PING stands for any other
that is not, with null for its part of the reply, as for what is different each time. ``"refused": true`` marks what was
refused for a reason that is not in the recording, a permission or a fault: it is not run again, but makes EXEC refuse,
too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvserver.commands.registry import Command, Group
from kvserver.protocol.encoder import encoding
from kvserver.protocol.replies import OK, Error, Reply, SimpleString
from kvserver.session import Session
from kvserver.testing.faults import named_in, refused

Run = Callable[[Session, list[bytes]], Reply]

_VERSION = 1
_ALSO = {"publish", "spublish"}
_AT_ONCE = {"exec", "discard", "multi", "watch", "quit", "reset"}
"""What a transaction does not queue."""
_FOREIGN = ("NOPERM", "NOAUTH")
"""Errors whose reason is not in a recording: who the client was."""
_LOCKED = {"exec", "eval", "evalsha", "publish", "spublish", "watch"}
"""Commands that take no lock around all of them, or none at all, and wait for nothing."""


class RecordingError(ValueError):
    """A file is no recording; the text says in which line."""


class Difference(AssertionError):  # noqa: N818 - it is what was found, and the test fails by it
    """A reply is not what was recorded.

    Attributes:
        number: of the command, from 1.
        entry: what was recorded.
        reply: what came now, as bytes of the protocol.
    """

    def __init__(self, number: int, entry: Entry, reply: bytes) -> None:
        words = b" ".join(entry.command)
        super().__init__(
            f"command {number}, of client {entry.client}: {_shown(words)} was answered {_shown(entry.reply)}, "
            f"and now {_shown(reply)}"
        )
        self.number, self.entry, self.reply = number, entry, reply


@dataclass(frozen=True, slots=True)
class Entry:
    """One command and its reply."""

    at: int
    client: int
    db: int
    resp: int
    command: tuple[bytes, ...]
    reply: bytes
    refused: bool = False


@dataclass(slots=True)
class Recording:
    """Commands with their replies."""

    entries: list[Entry] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        """Write a file."""
        lines = [json.dumps({"kvserver-recording": _VERSION}), *map(_line, self.entries)]
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read a file.

        Raises:
            RecordingError: it is no recording.
            OSError: it cannot be read.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            lines = text.removesuffix("\n").split("\n")  # values may hold other line ends
            version = json.loads(lines[0])["kvserver-recording"]
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise RecordingError(f"{path}: line 1 is not that of a recording") from None
        if version != _VERSION:
            raise RecordingError(f"{path}: version {version} is not one that can be read; this is {_VERSION}")
        return cls([_entry(path, number, line) for number, line in enumerate(lines[1:], 2)])


class Recorder:
    """Records what a server's clients send.

    Locking: a command that works on data is recorded with the keyspace lock held, as are transactions; so the order
    of the entries is the order of the effects.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._places = _Places()

    def run(self, session: Session, words: list[bytes], execute: Run) -> Reply:
        """Run a command as ``execute`` does, and note it and its reply."""
        entry = named_in(words)
        if session.transaction is not None and (entry is None or entry.name not in _AT_ONCE):
            return self._queue(session, words, execute, entry)
        if entry is None or not _is_recorded(entry):
            return self._leave(session, words, execute, entry)
        keyspace, db = session.keyspace, session.db  # what EXEC runs may select another
        if not (entry.on_database or entry.name in _LOCKED) or session.state.pause.active:
            reply = execute(session, words)
            with keyspace.lock:
                self._note(session, db, words, session.state.clock(), reply)
            return reply
        with keyspace.lock:
            keyspace.moment = None
            reply = execute(session, words)
            now = session.state.clock() if keyspace.moment is None else keyspace.moment
            self._note(session, db, words, now, reply)
            return reply

    def refuse(self, session: Session, words: list[bytes], error: Error) -> None:
        """Note that a fault refused a command, if that counts for the transaction it is in."""
        if session.transaction is not None:
            self._note_now(session, words, error, refused=True)

    def _queue(self, session: Session, words: list[bytes], execute: Run, entry: Command | None) -> Reply:
        """Run a command that has a place in the reply of EXEC, or keeps EXEC from running."""
        reply = execute(session, words)
        known = entry is not None and (_is_recorded(entry) or entry.name == "select")  # it acts within EXEC
        if known and not isinstance(reply, Error):
            self._note_now(session, words, reply)
        elif isinstance(reply, Error):
            self._note_now(session, words[:1], reply, refused=True)
        else:
            self._note_now(session, [b"PING"], reply)
        return reply

    def _leave(self, session: Session, words: list[bytes], execute: Run, entry: Command | None) -> Reply:
        """Run a command that is not recorded itself; RESET also ends what is."""
        was_open, was_watching = session.transaction is not None, bool(session.watched)
        reply = execute(session, words)
        if entry is not None and entry.name == "reset" and not isinstance(reply, Error):
            if was_open:
                self._note_now(session, [b"DISCARD"], OK)
            elif was_watching:
                self._note_now(session, [b"UNWATCH"], OK)
        return reply

    def _note_now(self, session: Session, words: list[bytes], reply: Reply, *, refused: bool = False) -> None:
        with session.keyspace.lock:
            self._note(session, session.db, words, session.state.clock(), reply, refused=refused)

    def _note(
        self, session: Session, db: int, words: list[bytes], at: int, reply: Reply, *, refused: bool = False
    ) -> None:
        """Add an entry. The keyspace lock is held."""
        refused = refused or (isinstance(reply, Error) and reply.code in _FOREIGN)
        shown = self._places.foreseeable(session.id, words, reply)
        encoded = encoding(session.protocol)[shown.__class__](shown)
        self._recording.entries.append(Entry(at, session.id, db, session.protocol, tuple(words), encoded, refused))


class _Places:
    """For each client, which of the commands it has queued have a reply that is the same each time."""

    def __init__(self) -> None:
        self._queued: dict[int, list[bool]] = {}

    def foreseeable(self, client: int, words: list[bytes], reply: Reply) -> Reply:
        """Take note of a command and its reply. Of EXEC's, those parts are null that are different each time."""
        name, queued = words[0].upper(), self._queued.setdefault(client, [])
        if name in (b"EXEC", b"DISCARD", b"MULTI"):
            del self._queued[client]
        elif isinstance(reply, SimpleString) and reply == b"QUEUED":
            queued.append(name != b"PING" and _is_foreseeable(words))
        if name == b"EXEC" and isinstance(reply, list) and len(reply) == len(queued):
            return [part if same else None for part, same in zip(reply, queued, strict=True)]
        return reply


class _Tokens:
    """Leases have other tokens each time; what gives one back has to give the one that there is now."""

    def __init__(self) -> None:
        self._now: dict[bytes, bytes] = {}

    def words(self, entry: Entry) -> list[bytes]:
        """A recorded command, as it is to be run."""
        words = list(entry.command)
        if words[0].upper() == b"KV.SETL" and len(words) > 2:
            words[2] = self._now.get(words[2], words[2])
        return words

    def learn(self, entry: Entry, encoded: bytes) -> None:
        """Take note of a lease: of the last line of both replies, the recorded one and the one now."""
        if entry.command[0].upper() == b"KV.GETL":
            self._now[_last_number(entry.reply)] = _last_number(encoded)


def _last_number(reply: bytes) -> bytes:
    return reply.rpartition(b":")[2].removesuffix(b"\r\n")


def replayed(entries: Iterable[Entry], session_of: Callable[[int], Session], execute: Run, set_clock: Clock) -> None:
    """Run commands again, each at its time and in the name of its client.

    Raises:
        Difference: a reply is not what it was, for a command that has one reply only.
        RecordingError: a command is of a database that there is not.
    """
    places, tokens = _Places(), _Tokens()
    for number, entry in enumerate(entries, 1):
        session = session_of(entry.client)
        count = len(session.keyspace.databases)
        if not 0 <= entry.db < count:
            raise RecordingError(f"command {number} is of database {entry.db}; this server has {count}")
        session.db = entry.db
        if session.protocol != entry.resp:
            session.speak(entry.resp)
        set_clock(entry.at)
        if entry.refused:
            refused(session, list(entry.command), Error("ERR refused in the recording"))
            continue
        words = tokens.words(entry)
        reply = places.foreseeable(entry.client, words, execute(session, words))
        encoded = session.encoding[reply.__class__](reply)
        tokens.learn(entry, encoded)
        if encoded != entry.reply and _is_foreseeable(words):
            raise Difference(number, entry, encoded)


def _is_foreseeable(words: list[bytes]) -> bool:
    command = named_in(words)
    return command is not None and "nondeterministic_output" not in command.tips


Clock = Callable[[int], object]


def _is_recorded(entry: Command) -> bool:
    return entry.on_database or entry.group in (Group.TRANSACTIONS, Group.SCRIPTING) or entry.name in _ALSO


def _line(entry: Entry) -> str:
    row = {
        "at": entry.at,
        "client": entry.client,
        "db": entry.db,
        "resp": entry.resp,
        "command": [_plain(word) for word in entry.command],
        "reply": _plain(entry.reply),
    }
    return json.dumps(row | ({"refused": True} if entry.refused else {}), ensure_ascii=False)


def _entry(path: str | Path, number: int, line: str) -> Entry:
    try:
        row = json.loads(line)
        at, client, db, resp = (row[name] for name in ("at", "client", "db", "resp"))
        command = tuple(map(_bytes, row["command"]))
        if not all(type(each) is int for each in (at, client, db)) or not command or resp not in (2, 3):
            raise ValueError
        return Entry(at, client, db, resp, command, _bytes(row["reply"]), row.get("refused") is True)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecordingError(f"{path}: line {number} is not a command with its reply") from None


def _plain(data: bytes) -> object:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _bytes(plain: Any) -> bytes:
    if isinstance(plain, str):
        return plain.encode("utf-8")
    return base64.b64decode(plain["base64"], validate=True)


def _shown(data: bytes) -> str:
    return repr(data[:80])[1:] + ("..." if len(data) > 80 else "")
