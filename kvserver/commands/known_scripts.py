"""What the Lua scripts of popular libraries do, as Python functions: one table, by the script's fingerprint.

There is no Lua here. A library that sends one of these scripts finds it working; every other script is refused. A
function is called with the keyspace lock held, so it is as atomic as a script, and returns what the script would.

The fingerprint leaves aside comments, white space, the case of letters and the kind of quotes, so that a script is
known again when a new version of its library writes it a little differently.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from kvserver.commands.arguments import MILLISECONDS, SECONDS, deadline, integer
from kvserver.commands.expiry import time_to_live
from kvserver.commands.keys import delete, rename
from kvserver.commands.strings import add, set_
from kvserver.protocol.replies import Error, Reply
from kvserver.store.glob import compile_glob
from kvserver.store.memory import Database

Words: TypeAlias = Sequence[bytes]
Function = Callable[[Database, Words, Words], Reply]
"""Gets the database, the keys and the other arguments. IndexError means that there were too few of them."""


def fingerprint(script: bytes) -> str:
    """What a script is known by."""
    text = re.sub(rb"\s+", b" ", re.sub(rb"--[^\n]*", b"", script)).strip().replace(b'"', b"'").lower()
    return hashlib.sha1(text).hexdigest()  # noqa: S324 - no secret; who forges one gets a function that exists


def _expire(db: Database, key: bytes, milliseconds: int) -> None:
    if db.peek(key) is not None:
        db.expire_at(key, deadline(b"%d" % milliseconds, MILLISECONDS, db.keyspace.now, "pexpire", positive=False))


def _release(db: Database, keys: Words, arguments: Words) -> Reply:
    """Delete the key if its value is still the token."""
    return delete(db, (keys[0],)) if db.get(keys[0]) == arguments[0] else 0


def _swap_value(db: Database, keys: Words, arguments: Words) -> Reply:
    """Set the key if its value is still the one given; an option of SET with its number may follow."""
    if db.get(keys[0]) != arguments[1]:
        return 0
    return set_(db, keys[0], arguments[0], *(arguments[2:] if len(arguments) == 4 else ()))


def _extend(db: Database, keys: Words, arguments: Words) -> Reply:
    """Give the key more time if its value is still the token: added to what is left, or instead of it."""
    left = time_to_live(db, keys[0])
    if db.get(keys[0]) != arguments[0] or left < 0:
        return 0
    more = integer(arguments[1])
    _expire(db, keys[0], more + left if len(arguments) < 3 or arguments[2] == b"0" else more)
    return 1


def _reacquire(db: Database, keys: Words, arguments: Words) -> Reply:
    """Give the key its whole time again if its value is still the token."""
    if db.get(keys[0]) != arguments[0]:
        return 0
    _expire(db, keys[0], integer(arguments[1]))
    return 1


def _fixed_window(db: Database, keys: Words, arguments: Words) -> Reply:
    """Count, and begin a window of so many seconds with the first count."""
    amount = integer(arguments[1])
    count = add(db, keys[0], amount)
    if count == amount:
        db.expire_at(keys[0], deadline(arguments[0], SECONDS, db.keyspace.now, "expire", positive=False))
    return count


def _shift_window(db: Database, keys: Words, milliseconds: int) -> None:
    """Make the current window the previous one once it is over; the key lives for two windows."""
    left = time_to_live(db, keys[1])
    if 0 < left < milliseconds:
        rename(db, keys[1], keys[0])
        db.put(keys[1], b"0")
        _expire(db, keys[1], left + milliseconds)


def _sliding_window(db: Database, keys: Words, arguments: Words) -> Reply:
    """The counts of the previous and the current window, each with its time to live."""
    _shift_window(db, keys, integer(arguments[0]) * 1000)
    return [part for key in keys[:2] for part in (db.get(key), time_to_live(db, key))]


def _acquire_sliding_window(db: Database, keys: Words, arguments: Words) -> Reply:
    """Count if that stays within the limit, the previous window counting for the part of it that is still in sight."""
    limit, milliseconds, amount = integer(arguments[0]), integer(arguments[1]) * 1000, integer(arguments[2])
    if amount > limit:
        return None
    _shift_window(db, keys, milliseconds)
    previous, current = (integer(db.get(key) or b"0") for key in keys[:2])
    weighted = previous * max(0, time_to_live(db, keys[0])) // milliseconds + current
    if weighted + amount > limit:
        return None
    if db.peek(keys[1]) is not None:
        add(db, keys[1], amount)
    else:
        db.put(keys[1], b"%d" % amount)
        _expire(db, keys[1], milliseconds * 2)
    return 1


def _clear(db: Database, keys: Words, _arguments: Words) -> Reply:
    """Delete every key that matches a glob pattern."""
    matches = compile_glob(keys[0])
    return delete(db, tuple(filter(matches, db.live_keys()())))


def _count_and_expire(db: Database, keys: Words, arguments: Words) -> Reply:
    """Count, and begin a window of so many milliseconds when the count is 1."""
    count = add(db, keys[0], integer(arguments[0]))
    if count == 1:
        _expire(db, keys[0], integer(arguments[1]))
    return count


def _count_if_there(db: Database, keys: Words, arguments: Words) -> Reply:
    """Count if the key exists."""
    return add(db, keys[0], integer(arguments[0])) if db.get(keys[0]) is not None else None


def _count(db: Database, keys: Words, arguments: Words) -> Reply:
    return add(db, keys[0], integer(arguments[0]))


KNOWN: dict[str, Function] = {
    "9013903602b9dc61ff5928f84e72c7fcbeb03098": _release,  # Lock of redis-py, valkey-py and coredis
    "4047b8418e399a329da6fc692f8dc3791d0b42fe": _release,  # aiocache, RedLock
    "ab12ccde48b1d63827fcfe2d02ef37b9a53df969": _swap_value,  # aiocache, OptimisticLock
    "fddf1030a97dbd10551c5ca4ede1b76e33d9db1a": _release,  # cashews; the one in Redis' documentation of locks
    "2749d4414a08163c56a6933ae1fc5fc6eb1ee341": _extend,  # Lock of redis-py and valkey-py
    "f0b6c8086b3f6a881cec2ec1893c14c8e3fae4c5": _extend,  # Lock of coredis
    "a7e2563fa3b77f6617fcbbc3b2e83ce9b4803436": _reacquire,  # Lock of redis-py and valkey-py
    "fde009894dbe59fffb2bd8a1a636c35bead959e3": _fixed_window,  # limits, and what is built on it
    "84aa0f94ffee22ce108a1245cb4ee5d36597826e": _sliding_window,  # limits
    "c3e499074ed80ebe32cc2234cf8d62cdac022c83": _acquire_sliding_window,  # limits
    "dba1174ec389b42f948152171d2caab7fcf8c44d": _clear,  # limits
    "fbf59b5061251088f63002e18d3339f68f0bd21d": _count_and_expire,  # cashews
    "d5562a64664d6b1a47531253eded089b6e587b39": _count_if_there,  # django-redis
    "f8eb3dc71be99b1a7b592508d4e490c08370b964": _count,  # django-redis
}

# Scripts that libraries load when they start, though they are of no use without another type of value. Loading them is
# allowed, so that the rest of the library works; running them is an error.
_LISTS = "ERR this script works on a list, and this server has strings only"


def _needs_lists(_db: Database, _keys: Words, _arguments: Words) -> Reply:
    raise Error(_LISTS)


RUNS: dict[Function, str] = {
    _release: "get del",
    _swap_value: "get set",
    _extend: "get pttl pexpire",
    _reacquire: "get pexpire",
    _fixed_window: "incrby expire",
    _sliding_window: "get ttl rename set pexpire",
    _acquire_sliding_window: "get ttl rename set incrby pexpire",
    _clear: "keys del",
    _count_and_expire: "incrby pexpire",
    _count_if_there: "get incrby",
    _count: "incrby",
    _needs_lists: "",
}
"""The commands that a script runs, all of which its user must be allowed."""
TOUCHES_ANY_KEY = {_clear}
"""Those that touch other keys than those they are given."""

KNOWN |= {
    "cbbf9ee7dfd8e01c43d2fd73fa71190e0d024c44": _needs_lists,  # limits, moving window
    "b037edf5dd112be2c7c48c6f3f2e69202a73d745": _needs_lists,  # limits, moving window
}
