r"""What clients sent and what they were answered, in the order of the effects; kept in a file; and run again.

The file has a JSON object a line: first ``{"kvserver-recording": 1}``, then one for each command:

    {"at": 1763900000000, "client": 3, "db": 0, "resp": 3, "command": ["SET", "k", "v"], "reply": "+OK\r\n"}

``at`` is the server's time in milliseconds, ``client`` tells connections apart, ``resp`` is the protocol version that
the reply is in, as bytes of it. A string of bytes is text if it is UTF-8, otherwise ``{"base64": "..."}``. Commands
about data, transactions and scripts are recorded, and publishing. Those about connections are not, so no password is
ever in a file, and each line says its database; but keys and values are.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvserver.commands.registry import COMMANDS, Command, Group, find
from kvserver.observe.redaction import redacted
from kvserver.protocol.encoder import encoding
from kvserver.protocol.replies import Reply
from kvserver.session import Session

Run = Callable[[Session, list[bytes]], Reply]

_VERSION = 1
_ALSO = {"publish", "spublish"}
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
        lines = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")  # values may hold other line ends
        try:
            version = json.loads(lines[0])["kvserver-recording"]
        except (ValueError, KeyError, TypeError, IndexError):
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

    def run(self, session: Session, words: list[bytes], execute: Run) -> Reply:
        """Run a command as ``execute`` does, and note it and its reply."""
        entry = find(COMMANDS, words[0])
        if entry is None or not _is_recorded(entry):
            return execute(session, words)
        keyspace = session.keyspace
        if not (entry.on_database or entry.name in _LOCKED) or session.state.pause.active:
            reply = execute(session, words)
            with keyspace.lock:
                self._note(session, words, session.state.clock(), reply)
            return reply
        with keyspace.lock:
            keyspace.moment = None
            reply = execute(session, words)
            self._note(session, words, session.state.clock() if keyspace.moment is None else keyspace.moment, reply)
            return reply

    def _note(self, session: Session, words: list[bytes], at: int, reply: Reply) -> None:
        encoded = encoding(session.protocol)[reply.__class__](reply)
        self._recording.entries.append(
            Entry(at, session.id, session.db, session.protocol, tuple(redacted(words)), encoded)
        )


def replayed(entries: Iterable[Entry], session_of: Callable[[int], Session], execute: Run, set_clock: Clock) -> None:
    """Run commands again, each at its time and in the name of its client.

    Raises:
        Difference: a reply is not what it was, for a command that has one reply only.
    """
    for number, entry in enumerate(entries, 1):
        session = session_of(entry.client)
        session.db = entry.db
        if session.protocol != entry.resp:
            session.speak(entry.resp)
        set_clock(entry.at)
        reply = execute(session, list(entry.command))
        encoded = session.encoding[reply.__class__](reply)
        command = find(COMMANDS, entry.command[0])
        is_foreseeable = command is not None and "nondeterministic_output" not in command.tips
        if encoded != entry.reply and is_foreseeable:
            raise Difference(number, entry, encoded)


Clock = Callable[[int], object]


def _is_recorded(entry: Command) -> bool:
    return entry.on_database or entry.group in (Group.TRANSACTIONS, Group.SCRIPTING) or entry.name in _ALSO


def _line(entry: Entry) -> str:
    return json.dumps(
        {
            "at": entry.at,
            "client": entry.client,
            "db": entry.db,
            "resp": entry.resp,
            "command": [_plain(word) for word in entry.command],
            "reply": _plain(entry.reply),
        },
        ensure_ascii=False,
    )


def _entry(path: str | Path, number: int, line: str) -> Entry:
    try:
        row = json.loads(line)
        at, client, db, resp = (row[name] for name in ("at", "client", "db", "resp"))
        command = tuple(map(_bytes, row["command"]))
        if not all(type(each) is int for each in (at, client, db)) or not command or resp not in (2, 3):
            raise ValueError
        return Entry(at, client, db, resp, command, _bytes(row["reply"]))
    except (ValueError, KeyError, TypeError):
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
