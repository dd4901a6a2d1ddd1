"""Deadlines: setting, reading and removing a key's time to live. Each handler runs with the keyspace lock held."""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.commands import arguments
from kvserver.commands.arguments import MILLISECONDS, SECONDS, UNIX_MILLISECONDS, UNIX_SECONDS, TimeUnit
from kvserver.commands.registry import Flags, Group, Keys, command
from kvserver.protocol.replies import Error
from kvserver.store.memory import Database

_generic = partial(command, group=Group.GENERIC)
_WRITE, _READ = Flags.WRITE | Flags.FAST, Flags.READONLY | Flags.FAST
_setter = partial(_generic, arity=-3, flags=_WRITE, keys=Keys(1, 1, 1, "RW update"), brief=True)
_getter = partial(_generic, syntax="key", arity=2, flags=_READ, keys=Keys(1, 1, 1, "RO access"), brief=True)
_CONDITIONS = "[NX | XX | GT | LT]"
_NONDETERMINISTIC = ("nondeterministic_output",)


def _expire(db: Database, command_name: str, key: bytes, time: bytes, unit: TimeUnit, words: tuple[bytes, ...]) -> int:
    """1 if the deadline was set (or the key removed, for one in the past), 0 if not."""
    conditions = _conditions(words)
    deadline = arguments.deadline(time, unit, db.keyspace.now, command_name, positive=False)
    if db.seek(key) is None:
        return 0
    current = db.deadline(key)
    if (
        (b"NX" in conditions and current is not None)
        or (b"XX" in conditions and current is None)
        or (b"GT" in conditions and (current is None or deadline <= current))  # no deadline: later than any
        or (b"LT" in conditions and current is not None and deadline >= current)
    ):
        return 0
    db.expire_at(key, deadline)
    return 1


def _conditions(words: tuple[bytes, ...]) -> set[bytes]:
    conditions = {word.upper() for word in words}
    for word in words:
        if word.upper() not in (b"NX", b"XX", b"GT", b"LT"):
            raise Error(f"ERR Unsupported option {errors.quote(word)}")
    if b"NX" in conditions and len(conditions) > 1:
        raise Error(errors.EXPIRE_NX_WITH_OTHERS)
    if conditions >= {b"GT", b"LT"}:
        raise Error(errors.EXPIRE_GT_AND_LT)
    return conditions


@_setter("EXPIRE", f"key seconds {_CONDITIONS}")
def expire(db: Database, key: bytes, seconds: bytes, *words: bytes) -> int:
    """Sets the time to live of a key in seconds; 1 if it was set, 0 if not."""
    return _expire(db, "expire", key, seconds, SECONDS, words)


@_setter("PEXPIRE", f"key milliseconds {_CONDITIONS}", since="2.6.0")
def pexpire(db: Database, key: bytes, milliseconds: bytes, *words: bytes) -> int:
    """Sets the time to live of a key in milliseconds; 1 if it was set, 0 if not."""
    return _expire(db, "pexpire", key, milliseconds, MILLISECONDS, words)


@_setter("EXPIREAT", f"key unix-time-seconds {_CONDITIONS}", since="1.2.0")
def expireat(db: Database, key: bytes, seconds: bytes, *words: bytes) -> int:
    """Sets when a key expires, as a Unix time in seconds; 1 if it was set, 0 if not."""
    return _expire(db, "expireat", key, seconds, UNIX_SECONDS, words)


@_setter("PEXPIREAT", f"key unix-time-milliseconds {_CONDITIONS}", since="2.6.0")
def pexpireat(db: Database, key: bytes, milliseconds: bytes, *words: bytes) -> int:
    """Sets when a key expires, as a Unix time in milliseconds; 1 if it was set, 0 if not."""
    return _expire(db, "pexpireat", key, milliseconds, UNIX_MILLISECONDS, words)


def _deadline(db: Database, key: bytes) -> int | None:
    """The deadline in milliseconds, -1 for a key without one, None for no key."""
    if db.look(key) is None:
        return None
    deadline = db.deadline(key)
    return -1 if deadline is None else deadline


def time_to_live(db: Database, key: bytes) -> int:
    """Milliseconds, -1 for a key without a deadline, -2 for no such key."""
    deadline = _deadline(db, key)
    if deadline is None:
        return -2
    return deadline if deadline == -1 else max(0, deadline - db.keyspace.now)


def _seconds(milliseconds: int) -> int:
    return milliseconds if milliseconds < 0 else (milliseconds + 500) // 1000


@_getter("TTL", tips=_NONDETERMINISTIC)
def ttl(db: Database, key: bytes) -> int:
    """Returns the time to live of a key in seconds, -1 if it has none, -2 if there is no such key."""
    return _seconds(time_to_live(db, key))


@_getter("PTTL", since="2.6.0", tips=_NONDETERMINISTIC)
def pttl(db: Database, key: bytes) -> int:
    """Returns the time to live of a key in milliseconds, -1 if it has none, -2 if there is no such key."""
    return time_to_live(db, key)


@_getter("EXPIRETIME", since="7.0.0")
def expiretime(db: Database, key: bytes) -> int:
    """Returns when a key expires as a Unix time in seconds, -1 if never, -2 if there is no such key."""
    deadline = _deadline(db, key)
    return -2 if deadline is None else _seconds(deadline)


@_getter("PEXPIRETIME", since="7.0.0")
def pexpiretime(db: Database, key: bytes) -> int:
    """Returns when a key expires as a Unix time in milliseconds, -1 if never, -2 if there is no such key."""
    deadline = _deadline(db, key)
    return -2 if deadline is None else deadline


@_generic("PERSIST", "key", arity=2, flags=_WRITE, keys=Keys(1, 1, 1, "RW update"), since="2.2.0", brief=True)
def persist(db: Database, key: bytes) -> int:
    """Removes the time to live of a key; 1 if it had one, 0 if not."""
    return int(db.seek(key) is not None and db.persist(key))
