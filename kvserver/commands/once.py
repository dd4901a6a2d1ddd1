"""KV.ONCE: a command that may be sent again, and is run once. The keyspace lock is held throughout.

The reply is kept under the client's token, in the same critical section as the command's effects, so the journal has
both or neither: also after a crash, whoever asks again is answered and nothing is repeated. See store/outcomes.py.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

from kvserver import errors
from kvserver.commands.arguments import integer
from kvserver.commands.registry import COMMANDS, Command, Flags, Group, command, find
from kvserver.protocol.replies import Error, Reply, SimpleString
from kvserver.store.memory import Database
from kvserver.store.outcomes import PREFIX

_LONGEST_TOKEN = 128
_DAY = 86_400_000


@command(
    "KV.ONCE",
    "token milliseconds command [argument ...]",
    group=Group.GENERIC,
    arity=-4,
    flags=Flags.WRITE | Flags.DENYOOM | Flags.NOSCRIPT,
    complexity="That of the command",
    categories=("string",),
)
def once(db: Database, token: bytes, milliseconds: bytes, *words: bytes) -> Reply:
    """Runs a command that changes keys, unless it was run with this token before; returns its reply either way."""
    lifetime = integer(milliseconds)
    if not 0 < len(token) <= _LONGEST_TOKEN or not 0 < lifetime <= _DAY:
        raise Error(errors.BAD_TOKEN)
    entry = wrapped(words)
    mark = _fingerprint(entry, words)
    key = PREFIX + token
    kept = db.peek(key)
    if kept is not None:
        return _recalled(kept, mark)
    now = db.keyspace.now
    if not db.keyspace.outcomes.has_room(now):
        raise Error(errors.TOO_MANY_OUTCOMES)
    reply: Reply = entry.handler(db, *words[1:])  # what fails has no outcome, and may be tried again
    db.keyspace.outcomes.add(now + lifetime)
    db.put(key, json.dumps({"of": mark, "reply": _plain(reply)}, separators=(",", ":")).encode(), None)
    db.expire_at(key, now + lifetime, None)
    return reply


def wrapped(words: tuple[bytes, ...]) -> Command:
    """The command that KV.ONCE is to run.

    Raises:
        Error: there is no such command, it has other arguments, or it is none that changes keys.
    """
    entry = find(COMMANDS, words[0])
    if entry is None:
        raise errors.unknown_command(list(words))
    if not entry.on_database or entry.keys is None or Flags.WRITE not in entry.flags:
        raise Error(errors.NOT_FOR_ONCE)
    if not entry.minimum <= len(words) <= entry.maximum:
        raise errors.wrong_arity(entry.name)
    return entry


def _fingerprint(entry: Command, words: tuple[bytes, ...]) -> str:
    """What tells one command from another, so that a token used twice is found out."""
    framed = b"".join(b"%d:%b" % (len(word), word) for word in (entry.name.encode("ascii"), *words[1:]))
    return hashlib.blake2b(framed, digest_size=16).hexdigest()


def _plain(reply: Reply) -> object:
    """A reply in JSON's types: bytes as Latin-1 text, a status or a map as an object that says which."""
    if isinstance(reply, list):
        return [_plain(item) for item in reply]
    if isinstance(reply, SimpleString):
        return {"status": reply.decode("latin-1")}
    if isinstance(reply, bytes):
        return reply.decode("latin-1")
    if isinstance(reply, dict):
        return {
            "map": [[key.decode("latin-1"), _plain(value)] for key, value in cast("dict[bytes, Reply]", reply).items()]
        }
    return reply  # None, a number or a boolean, as commands of Python may return


def _recalled(kept: bytes, mark: str) -> Reply:
    """The reply that was kept.

    Raises:
        Error: it is that of another command.
    """
    try:
        outcome = json.loads(kept)
        if outcome["of"] == mark:
            return _reply(outcome["reply"])
    except (ValueError, TypeError, KeyError):  # somebody has written over it
        pass
    raise Error(errors.TOKEN_REUSED)


def _reply(plain: Any) -> Reply:
    if isinstance(plain, list):
        return [_reply(item) for item in plain]
    if isinstance(plain, dict) and "map" in plain:
        return {key.encode("latin-1"): _reply(value) for key, value in plain["map"]}
    if isinstance(plain, dict):
        return SimpleString(plain["status"].encode("latin-1"))
    return plain.encode("latin-1") if isinstance(plain, str) else plain
