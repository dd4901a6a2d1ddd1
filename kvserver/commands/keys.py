"""Keys: deleting, renaming, copying, asking about them. Each handler runs with the keyspace lock held."""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.commands.arguments import INT32_MAX, INT32_MIN, integer
from kvserver.commands.containers import add_help
from kvserver.commands.registry import Flags, Group, Keys, command
from kvserver.commands.strings import encoding
from kvserver.protocol.replies import OK, Error, Reply, SimpleString
from kvserver.store.memory import Database, Keyspace
from kvserver.store.turns import in_turns

_generic = partial(command, group=Group.GENERIC)
_READ_FAST = Flags.READONLY | Flags.FAST
_SUM = ("request_policy:multi_shard", "response_policy:agg_sum")
_PER_KEY = "O(N), N keys"


def delete(db: Database, keys: tuple[bytes, ...]) -> int:
    """Delete keys; how many there were."""
    return sum(map(db.remove, in_turns(keys)))


@_generic(
    "DEL",
    "key [key ...]",
    arity=-2,
    flags=Flags.WRITE,
    keys=Keys(1, -1, 1, "RM delete"),
    complexity=_PER_KEY,
    tips=_SUM,
)
def del_(db: Database, *keys: bytes) -> int:
    """Deletes keys; returns how many there were."""
    return delete(db, keys)


@_generic(
    "UNLINK",
    "key [key ...]",
    arity=-2,
    flags=Flags.WRITE | Flags.FAST,
    keys=Keys(1, -1, 1, "RM delete"),
    since="4.0.0",
    complexity=_PER_KEY,
    tips=_SUM,
)
def unlink(db: Database, *keys: bytes) -> int:
    """Deletes keys; returns how many there were. The same as DEL here."""
    return delete(db, keys)


def _count(db: Database, keys: tuple[bytes, ...]) -> int:
    return sum(db.get(key) is not None for key in in_turns(keys))


@_generic(
    "EXISTS",
    "key [key ...]",
    arity=-2,
    flags=_READ_FAST,
    keys=Keys(1, -1, 1, "RO"),
    complexity=_PER_KEY,
    tips=_SUM,
)
def exists(db: Database, *keys: bytes) -> int:
    """Returns how many of the keys exist; one that is named twice counts twice."""
    return sum(db.look(key) is not None for key in in_turns(keys))


@_generic(
    "TOUCH",
    "key [key ...]",
    arity=-2,
    flags=_READ_FAST,
    keys=Keys(1, -1, 1, "RO"),
    since="3.2.1",
    complexity=_PER_KEY,
    tips=_SUM,
)
def touch(db: Database, *keys: bytes) -> int:
    """Counts as an access to the keys; returns how many of them exist."""
    return _count(db, keys)


@_generic("TYPE", "key", arity=2, flags=_READ_FAST, keys=Keys(1, 1, 1, "RO"), brief=True)
def type_(db: Database, key: bytes) -> SimpleString:
    """Returns the type of a key's value: string, or none if there is no such key."""
    return SimpleString(b"none" if db.look(key) is None else b"string")


def _rename(db: Database, key: bytes, newkey: bytes, value: bytes) -> None:
    deadline = db.deadline(key)
    db.remove(key, None)
    db.put(newkey, value, None)
    if deadline is not None:
        db.expire_at(newkey, deadline, None)
    db.announce(key, "rename_from")
    db.announce(newkey, "rename_to")


@_generic(
    "RENAME",
    "key newkey",
    arity=3,
    flags=Flags.WRITE,
    keys=Keys(1, 2, 1, "RW access delete", second="OW update"),
)
def rename(db: Database, key: bytes, newkey: bytes) -> SimpleString:
    """Renames a key, with its time to live; a key that had the new name is replaced."""
    value = db.peek(key)
    if value is None:
        raise Error(errors.NO_SUCH_KEY)
    if key != newkey:
        _rename(db, key, newkey, value)
    return OK


@_generic(
    "RENAMENX",
    "key newkey",
    arity=3,
    flags=Flags.WRITE | Flags.FAST,
    keys=Keys(1, 2, 1, "RW access delete", second="OW insert"),
)
def renamenx(db: Database, key: bytes, newkey: bytes) -> int:
    """Renames a key only if the new name is free; 1 if it was renamed, 0 if not."""
    value = db.seek(key)
    if value is None:
        raise Error(errors.NO_SUCH_KEY)
    if db.seek(newkey) is not None:
        return 0
    _rename(db, key, newkey, value)
    return 1


@_generic(
    "COPY",
    "source destination [DB destination-db] [REPLACE]",
    arity=-3,
    flags=Flags.WRITE | Flags.DENYOOM,
    keys=Keys(1, 2, 1, "RO access", second="OW update"),
    since="6.2.0",
)
def copy(db: Database, source: bytes, destination: bytes, *words: bytes) -> int:
    """Copies a key with its time to live, to another database if one is named; 1 if it was copied, 0 if not."""
    target, replace = _copy_options(db, words)
    if target is db and source == destination:
        raise Error(errors.SAME_OBJECT)
    value = db.get(source)
    if value is None or (target.peek(destination) is not None and not replace):
        return 0
    deadline = db.deadline(source)
    target.put(destination, value, None)
    if deadline is not None:
        target.expire_at(destination, deadline, None)
    target.announce(destination, "copy_to")
    return 1


def _copy_options(db: Database, words: tuple[bytes, ...]) -> tuple[Database, bool]:
    target, replace = db, False
    rest = iter(words)
    for word in rest:
        match word.upper():
            case b"REPLACE":
                replace = True
            case b"DB" if (index := next(rest, None)) is not None:
                target = _numbered(db.keyspace, index)
            case _:
                raise Error(errors.SYNTAX)
    return target, replace


def _numbered(keyspace: Keyspace, index: bytes) -> Database:
    return keyspace.databases[database_index(keyspace, index)]


def database_index(keyspace: Keyspace, text: bytes) -> int:
    """The number of a database.

    Raises:
        Error: it is no 32-bit number, or there is no such database.
    """
    index = integer(text)
    if not INT32_MIN <= index <= INT32_MAX:
        raise Error(errors.NOT_32_BITS)
    if not 0 <= index < len(keyspace.databases):
        raise Error(errors.DB_OUT_OF_RANGE)
    return index


@_generic("MOVE", "key db", arity=3, flags=Flags.WRITE | Flags.FAST, keys=Keys(1, 1, 1, "RW access update"))
def move(db: Database, key: bytes, index: bytes) -> int:
    """Moves a key with its time to live to another database; 1 if it was moved, 0 if not."""
    target = _numbered(db.keyspace, index)
    if target is db:
        raise Error(errors.SAME_OBJECT)
    value = db.peek(key)
    if value is None or target.peek(key) is not None:
        return 0
    deadline = db.deadline(key)
    target.put(key, value, None)
    if deadline is not None:
        target.expire_at(key, deadline, None)
    db.remove(key, "move_from")
    target.announce(key, "move_to")
    return 1


# OBJECT

_object = partial(
    _generic,
    syntax="key",
    arity=3,
    flags=Flags.READONLY,
    keys=Keys(2, 2, 1, "RO"),
    since="2.2.3",
    tips=("nondeterministic_output",),
)


@_generic("OBJECT", "subcommand [argument ...]", arity=-2, since="2.2.3", categories=("!keyspace",))
def object_(_db: Database) -> Reply:
    """Tells about a value, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("OBJECT", group=Group.GENERIC, since="6.2.0")


@_object("OBJECT|ENCODING")
def object_encoding(db: Database, key: bytes) -> bytes | None:
    """Returns how Valkey would hold the value of a key: int, embstr or raw."""
    value = db.look(key, announce=False)
    return None if value is None else encoding(key, value)


@_object("OBJECT|FREQ", since="4.0.0")
def object_freq(db: Database, key: bytes) -> int | None:
    """Returns how much a key has been used lately, from 0 to 15, when an LFU policy counts it."""
    if db.look(key, announce=False) is None:
        return None
    if not db.keyspace.eviction.counts_uses or db.policy is None:
        raise Error(errors.LFU_NOT_SELECTED)
    return db.policy.uses(key)


@_object("OBJECT|IDLETIME")
def object_idletime(db: Database, key: bytes) -> int | None:
    """Returns the seconds since a key was last used. Recorded from the first time anyone asks."""
    if db.look(key, announce=False) is None:
        return None
    if db.keyspace.eviction.counts_uses:
        raise Error(errors.LFU_SELECTED)
    return max(0, db.idle_ms(key)) // 1000  # the clock may have been set back since


@_object("OBJECT|REFCOUNT")
def object_refcount(db: Database, key: bytes) -> int | None:
    """Returns 1: values are not shared."""
    return None if db.look(key, announce=False) is None else 1
