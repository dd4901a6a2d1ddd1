"""Whole databases: listing and walking their keys, counting, emptying, exchanging them.

What may take long here is left for after the lock is released; then others run meanwhile.
"""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.commands.arguments import INT32_MAX, INT32_MIN, integer
from kvserver.commands.registry import Flags, Group, command
from kvserver.protocol.replies import OK, Deferred, Error, Reply, SimpleString
from kvserver.store.glob import compile_glob
from kvserver.store.memory import Database

_generic = partial(command, group=Group.GENERIC)
_TYPES = (b"string", b"list", b"set", b"zset", b"hash", b"stream")


@command(
    "SWAPDB",
    "index1 index2",
    group=Group.SERVER,
    arity=3,
    flags=Flags.WRITE | Flags.FAST,
    since="4.0.0",
    categories=("keyspace", "dangerous"),
)
def swapdb(db: Database, index1: bytes, index2: bytes) -> SimpleString:
    """Exchanges two databases, for every client at once."""
    if not db.keyspace.can_swap:
        raise Error(errors.NO_SWAPDB_IN_CLUSTER)
    first = _integer32(index1, "ERR invalid first DB index")
    second = _integer32(index2, "ERR invalid second DB index")
    if not {first, second} <= set(range(len(db.keyspace.databases))):
        raise Error(errors.DB_OUT_OF_RANGE)
    db.keyspace.swap(first, second)
    return OK


def _integer32(text: bytes, fault: str) -> int:
    number = integer(text, fault)
    if not INT32_MIN <= number <= INT32_MAX:
        raise Error(fault)
    return number


@_generic(
    "RANDOMKEY",
    "",
    arity=1,
    flags=Flags.READONLY,
    complexity="O(N), N keys in the database",
    tips=("request_policy:all_shards", "response_policy:special", "nondeterministic_output"),
)
def randomkey(db: Database) -> bytes | None:
    """Returns any one key, null if there is none."""
    return db.random_key()


@_generic(
    "KEYS",
    "pattern",
    arity=2,
    flags=Flags.READONLY,
    complexity="O(N), N keys in the database",
    categories=("dangerous",),
    tips=("request_policy:all_shards", "nondeterministic_output_order"),
)
def keys(db: Database, pattern: bytes) -> Deferred:
    """Returns every key that matches a glob pattern; other clients are served meanwhile."""
    live = db.live_keys()

    def finish() -> Reply:
        matches = compile_glob(pattern)
        return [key for key in live() if matches(key)]

    return finish


@_generic(
    "SCAN",
    "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    arity=-2,
    flags=Flags.READONLY,
    since="2.8.0",
    complexity="O(1) a call, O(N) for all calls and for cursor 0",
    tips=("nondeterministic_output", "request_policy:special", "response_policy:special"),
)
def scan(db: Database, cursor: bytes, *words: bytes) -> Deferred:
    """Walks the keys, some at a call; every key that is there during the whole walk is returned exactly once.

    The walk begins with cursor 0 and ends when 0 comes back.
    """
    place = _cursor(cursor)
    pattern, count, wanted = _scan_options(words)
    take = db.take_snapshot(fresh=place == 0)

    def finish() -> Reply:
        following, found = take().walk(place, count)
        if not following:
            db.drop_snapshot()
        matches = compile_glob(pattern)
        shown: list[Reply] = [key for key in db.still_there(found) if matches(key)]
        return [b"%d" % following, shown if wanted in (None, b"string") else []]

    return finish


def _cursor(text: bytes) -> int:
    if not (text.isdigit() and len(text) <= 20) or int(text) >= 2**64:
        raise Error(errors.BAD_CURSOR)
    return int(text)


def _scan_options(words: tuple[bytes, ...]) -> tuple[bytes, int, bytes | None]:
    pattern, count, wanted = b"*", 10, None
    rest = iter(words)
    for word in rest:
        value = next(rest, None)
        if value is None:
            raise Error(errors.SYNTAX)
        match word.upper():
            case b"MATCH":
                pattern = value
            case b"COUNT":
                count = integer(value)
                if count < 1:
                    raise Error(errors.SYNTAX)
            case b"TYPE":
                wanted = value.lower()
                if wanted not in _TYPES:
                    raise Error(f"ERR unknown type name '{errors.quote(value)}'")
            case _:
                raise Error(errors.SYNTAX)
    return pattern, count, wanted


@command(
    "DBSIZE",
    "",
    group=Group.SERVER,
    arity=1,
    flags=Flags.READONLY | Flags.FAST,
    categories=("keyspace",),
    tips=("request_policy:all_shards", "response_policy:agg_sum"),
)
def dbsize(db: Database) -> int:
    """Returns how many keys the selected database holds."""
    return len(db.values)


_flush = partial(
    command,
    syntax="[ASYNC | SYNC]",
    group=Group.SERVER,
    arity=-1,
    flags=Flags.WRITE,
    complexity="O(N), N keys",
    categories=("keyspace", "dangerous"),
    tips=("request_policy:all_shards", "response_policy:all_succeeded"),
)


def _check_mode(words: tuple[bytes, ...]) -> None:
    if len(words) > 1 or (words and words[0].upper() not in (b"ASYNC", b"SYNC")):
        raise Error(errors.SYNTAX)


@_flush("FLUSHDB")
def flushdb(db: Database, *words: bytes) -> Deferred:
    """Deletes every key of the selected database."""
    _check_mode(words)
    old = [db.flush()]
    return lambda: _let_go(old)


@_flush("FLUSHALL")
def flushall(db: Database, *words: bytes) -> Deferred:
    """Deletes every key of every database."""
    _check_mode(words)
    old = db.keyspace.flush()
    return lambda: _let_go(old)


def _let_go(contents: list[dict[bytes, bytes]]) -> SimpleString:
    """Free millions of keys without the lock, and one by one: in one piece it would keep everybody else waiting."""
    for values in contents:
        while values:
            values.popitem()
    return OK
