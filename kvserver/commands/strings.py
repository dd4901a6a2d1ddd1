"""Values: setting, getting, and changing them in place. Each handler runs with the keyspace lock held."""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.commands import arguments
from kvserver.commands.arguments import INTEGER_MAX, INTEGER_MIN, as_integer, integer
from kvserver.commands.conditional import is_met, store
from kvserver.commands.longdouble import LongDouble
from kvserver.commands.registry import Flags, Group, Keys, command
from kvserver.protocol.replies import OK, Error, Reply, SimpleString
from kvserver.store.memory import Database
from kvserver.store.turns import in_turns
from kvserver.store.values import Edited, Formatted

_string = partial(command, group=Group.STRING)

_WRITE_FAST = Flags.WRITE | Flags.DENYOOM | Flags.FAST
_WRITE = Flags.WRITE | Flags.DENYOOM
_READ_FAST = Flags.READONLY | Flags.FAST
_COUNTED = Keys(1, 1, 1, "RW access update")
_MULTI_SHARD = ("request_policy:multi_shard",)
_MULTI_SHARD_ALL = ("request_policy:multi_shard", "response_policy:all_succeeded")


@_string("GET", "key", arity=2, flags=_READ_FAST, keys=Keys(1, 1, 1, "RO access"), glances=True, brief=True)
def get(db: Database, key: bytes) -> bytes | None:
    """Returns the value of a key."""
    return db.get(key)


@_string(
    "SET",
    "key value [NX | XX | IFEQ value | IFNE value | IFDEQ digest | IFDNE digest] [GET]"
    " [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    arity=-3,
    flags=_WRITE,
    keys=Keys(1, 1, 1, "RW access update variable_flags"),
    one_step=3,
    brief=True,
)
def set_(db: Database, key: bytes, value: bytes, *words: bytes) -> Reply:
    """Sets the value of a key, on a condition if one is given, with a time to live if one is given.

    A time to live that the key had is discarded, unless KEEPTTL. When the condition is not met nothing changes and
    the reply is null. With GET the reply is the old value, whether or not the new one was set.
    """
    if not words:
        db.put(key, value)
        return OK
    options = arguments.value_options(words, reading=False)
    deadline = options.deadline(db.keyspace.now, "set")
    old = db.get(key) if options.get else db.seek(key)
    if not is_met(options.condition, options.operand, old):
        return old if options.get else None
    store(db, key, value, deadline, keep_ttl=options.keep_ttl)
    return old if options.get else OK


@_string("SETNX", "key value", arity=3, flags=_WRITE_FAST, keys=Keys(1, 1, 1, "OW insert"), one_step=3, brief=True)
def setnx(db: Database, key: bytes, value: bytes) -> int:
    """Sets the value of a key only if the key does not exist; 1 if it was set, 0 if not."""
    if db.seek(key) is not None:
        return 0
    db.put(key, value)
    return 1


@_string(
    "SETEX", "key seconds value", arity=4, flags=_WRITE, keys=Keys(1, 1, 1, "OW update"), since="2.0.0", brief=True
)
def setex(db: Database, key: bytes, seconds: bytes, value: bytes) -> SimpleString:
    """Sets the value of a key and its time to live in seconds."""
    store(db, key, value, arguments.deadline(seconds, arguments.SECONDS, db.keyspace.now, "setex"))
    return OK


@_string(
    "PSETEX",
    "key milliseconds value",
    arity=4,
    flags=_WRITE,
    keys=Keys(1, 1, 1, "OW update"),
    since="2.6.0",
    brief=True,
)
def psetex(db: Database, key: bytes, milliseconds: bytes, value: bytes) -> SimpleString:
    """Sets the value of a key and its time to live in milliseconds."""
    store(db, key, value, arguments.deadline(milliseconds, arguments.MILLISECONDS, db.keyspace.now, "psetex"))
    return OK


@_string("GETSET", "key value", arity=3, flags=_WRITE_FAST, keys=_COUNTED, brief=True)
def getset(db: Database, key: bytes, value: bytes) -> bytes | None:
    """Sets the value of a key and returns the old one; a time to live is discarded."""
    old = db.get(key)
    db.put(key, value)
    return old


@_string(
    "GETDEL",
    "key",
    arity=2,
    flags=Flags.WRITE | Flags.FAST,
    keys=Keys(1, 1, 1, "RW access delete"),
    since="6.2.0",
    brief=True,
)
def getdel(db: Database, key: bytes) -> bytes | None:
    """Returns the value of a key and deletes the key."""
    value = db.get(key)
    db.remove(key)  # also if there is nothing to delete: it voids a lease
    return value


@_string(
    "GETEX",
    "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
    arity=-2,
    flags=Flags.WRITE | Flags.FAST,
    keys=_COUNTED,
    since="6.2.0",
    brief=True,
)
def getex(db: Database, key: bytes, *words: bytes) -> bytes | None:
    """Returns the value of a key and sets, or with PERSIST removes, its time to live."""
    options = arguments.value_options(words, reading=True)
    deadline = options.deadline(db.keyspace.now, "getex")  # a bad time is an error also when there is no key
    value = db.get(key)
    if value is None:
        return None
    if deadline is not None:
        db.expire_at(key, deadline)
    elif options.persist:
        db.persist(key)
    return value


@_string(
    "MGET",
    "key [key ...]",
    arity=-2,
    flags=_READ_FAST,
    keys=Keys(1, -1, 1, "RO access"),
    complexity="O(N), N keys",
    tips=_MULTI_SHARD,
)
def mget(db: Database, *keys: bytes) -> Reply:
    """Returns the values of several keys as of one moment, null for each that does not exist."""
    return [db.get(key) for key in in_turns(keys)]


def _pairs(command_name: str, words: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    """Keys and values, in order; of a key that is given twice the last value stays."""
    if len(words) % 2:
        raise errors.wrong_arity(command_name)
    return list(zip(words[::2], words[1::2], strict=True))


@_string(
    "MSET",
    "key value [key value ...]",
    arity=-3,
    flags=_WRITE,
    keys=Keys(1, -1, 2, "OW update"),
    since="1.0.1",
    complexity="O(N), N keys",
    tips=_MULTI_SHARD_ALL,
)
def mset(db: Database, *words: bytes) -> SimpleString:
    """Sets the values of several keys at once; nobody sees some set and some not."""
    for key, value in in_turns(_pairs("mset", words)):
        db.put(key, value)
    return OK


@_string(
    "MSETNX",
    "key value [key value ...]",
    arity=-3,
    flags=_WRITE,
    keys=Keys(1, -1, 2, "OW insert"),
    since="1.0.1",
    complexity="O(N), N keys",
)
def msetnx(db: Database, *words: bytes) -> int:
    """Sets the values of several keys only if none of them exists; 1 if all were set, 0 if none."""
    pairs = _pairs("msetnx", words)
    if any(db.seek(key) is not None for key, _ in in_turns(pairs)):
        return 0
    for key, value in in_turns(pairs):
        db.put(key, value)
    return 1


@_string("STRLEN", "key", arity=2, flags=_READ_FAST, keys=Keys(1, 1, 1, "RO"), since="2.2.0", brief=True)
def strlen(db: Database, key: bytes) -> int:
    """Returns the length of a value in bytes, 0 if the key does not exist."""
    return len(db.get(key) or b"")


@_string(
    "APPEND",
    "key value",
    arity=3,
    flags=_WRITE_FAST,
    keys=Keys(1, 1, 1, "RW insert"),
    since="2.0.0",
    complexity="O(N), N the length of the new value",
)
def append(db: Database, key: bytes, value: bytes) -> int:
    """Appends to a value, creating the key if need be; returns the new length in bytes."""
    old = db.peek(key)
    if old is None:
        db.put(key, value, "append")
        return len(value)
    _check_length(db, len(old) + len(value))
    db.replace(key, Edited(old + value), "append", (len(old), len(old) + len(value)))
    return len(old) + len(value)


def _check_length(db: Database, length: int) -> None:
    """Before anything is allocated (CVE-2022-35977)."""
    if length > db.keyspace.max_value:
        raise Error(errors.STRING_TOO_LONG)


@_string(
    "SETRANGE",
    "key offset value",
    arity=4,
    flags=_WRITE,
    keys=Keys(1, 1, 1, "RW update"),
    since="2.2.0",
    complexity="O(N), N the length of the value",
)
def setrange(db: Database, key: bytes, offset: bytes, value: bytes) -> int:
    """Overwrites part of a value from a byte offset on, padding with zero bytes; returns the new length in bytes."""
    start = integer(offset)
    if start < 0:
        raise Error(errors.OFFSET_OUT_OF_RANGE)
    old = db.peek(key)
    if not value:
        return len(old or b"")
    _check_length(db, start + len(value))
    old = old or b""
    new = b"".join((old[:start], bytes(max(0, start - len(old))), value, old[start + len(value) :]))
    db.replace(key, Edited(new), "setrange", (start, start + len(value)))
    return len(new)


def _range(db: Database, key: bytes, start: bytes, end: bytes) -> bytes:
    first, last = integer(start), integer(end)
    value = db.get(key) or b""
    if first < 0 and last < 0 and first > last:
        return b""
    first = max(0, first + len(value)) if first < 0 else first
    last = max(0, last + len(value)) if last < 0 else last
    return bytes(value[first : last + 1]) if first <= last else b""


@_string(
    "GETRANGE",
    "key start end",
    arity=4,
    flags=Flags.READONLY,
    keys=Keys(1, 1, 1, "RO access"),
    since="2.4.0",
    complexity="O(N), N the length of the part",
)
def getrange(db: Database, key: bytes, start: bytes, end: bytes) -> bytes:
    """Returns part of a value: bytes start to end, both included, negative ones counted from the end."""
    return _range(db, key, start, end)


@_string(
    "SUBSTR",
    "key start end",
    arity=4,
    flags=Flags.READONLY,
    keys=Keys(1, 1, 1, "RO access"),
    complexity="O(N), N the length of the part",
)
def substr(db: Database, key: bytes, start: bytes, end: bytes) -> bytes:
    """Returns part of a value; the old name of GETRANGE."""
    return _range(db, key, start, end)


def add(db: Database, key: bytes, increment: int) -> int:
    """Add to the integer value of a key, which counts as 0 if it does not exist; the new value."""
    old = db.seek(key)
    number = 0 if old is None else integer(old)
    number += increment
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise Error(errors.OVERFLOW)
    db.replace(key, b"%d" % number, "incrby")
    return number


@_string("INCR", "key", arity=2, flags=_WRITE_FAST, keys=_COUNTED, one_step=2, brief=True)
def incr(db: Database, key: bytes) -> int:
    """Adds one to the integer value of a key, which counts as 0 if it does not exist; returns the new value."""
    return add(db, key, 1)


@_string("DECR", "key", arity=2, flags=_WRITE_FAST, keys=_COUNTED, one_step=2, brief=True)
def decr(db: Database, key: bytes) -> int:
    """Takes one from the integer value of a key; returns the new value."""
    return add(db, key, -1)


@_string("INCRBY", "key increment", arity=3, flags=_WRITE_FAST, keys=_COUNTED, one_step=3, brief=True)
def incrby(db: Database, key: bytes, increment: bytes) -> int:
    """Adds a number to the integer value of a key; returns the new value."""
    return add(db, key, integer(increment))


@_string("DECRBY", "key decrement", arity=3, flags=_WRITE_FAST, keys=_COUNTED, one_step=3, brief=True)
def decrby(db: Database, key: bytes, decrement: bytes) -> int:
    """Takes a number from the integer value of a key; returns the new value."""
    amount = integer(decrement)
    if amount == INTEGER_MIN:  # it has no positive counterpart
        raise Error(errors.DECREMENT_OVERFLOW)
    return add(db, key, -amount)


@_string("INCRBYFLOAT", "key increment", arity=3, flags=_WRITE_FAST, keys=_COUNTED, since="2.6.0")
def incrbyfloat(db: Database, key: bytes, increment: bytes) -> bytes:
    """Adds a number to the decimal value of a key, in 80-bit floating point; returns the new value."""
    old = db.seek(key)
    number = LongDouble.parse(b"0" if old is None else old)
    amount = LongDouble.parse(increment)
    if number is None or amount is None:
        raise Error(errors.NOT_A_FLOAT)
    total = number + amount
    if not total.finite:
        raise Error(errors.NAN_OR_INFINITY)
    db.replace(key, Formatted(total.format()), "incrbyfloat")
    return total.format()


def encoding(key: bytes, value: bytes) -> bytes:
    """How Valkey would hold the value, for OBJECT ENCODING.

    ``int``: a 64-bit integer in canonical form; ``embstr``: key and value fit one allocation of 128 bytes; else
    ``raw``, which is also what a value becomes by being changed in place.
    """
    if type(value) is Edited:
        return b"raw"
    if type(value) is not Formatted and as_integer(value) is not None:
        return b"int"
    header = 17 if len(key) >= 32 else 15
    return b"embstr" if header + len(key) + len(value) <= 128 else b"raw"
