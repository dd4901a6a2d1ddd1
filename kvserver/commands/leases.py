"""KV.GETL and KV.SETL: reading with a lease, so that one client computes a missing value. The keyspace lock is held."""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.commands import arguments
from kvserver.commands.arguments import integer
from kvserver.commands.conditional import store
from kvserver.commands.expiry import time_to_live
from kvserver.commands.registry import Flags, Group, Keys, command
from kvserver.protocol.replies import OK, Error, Reply
from kvserver.store.leases import TooManyLeasesError
from kvserver.store.memory import Database

_DAY = 86_400_000
_string = partial(command, group=Group.STRING, since="1.0.0")


@_string(
    "KV.GETL",
    "key milliseconds [STALE milliseconds]",
    arity=-3,
    flags=Flags.READONLY | Flags.FAST,
    keys=Keys(1, 1, 1, "RO access"),
    tips=("nondeterministic_output",),
)
def getl(db: Database, key: bytes, lease: bytes, *words: bytes) -> Reply:
    """Returns a value, its time to live, and a lease if it is missing or old and nobody else computes a new one."""
    duration, stale = integer(lease), -1
    if not 0 < duration <= _DAY:
        raise Error(errors.BAD_LEASE)
    if words:
        if len(words) != 2 or words[0].upper() != b"STALE":
            raise Error(errors.SYNTAX)
        stale = integer(words[1])
        if stale < 0:
            raise Error(errors.BAD_LEASE)
    value = db.get(key)
    left = time_to_live(db, key)
    if value is not None and (left == -1 or left > stale):
        return [value, left, None]
    now = db.keyspace.now
    try:
        return [value, left, db.leases.grant(key, now, now + duration)]
    except TooManyLeasesError:
        raise Error(errors.TOO_MANY_LEASES) from None


@_string(
    "KV.SETL",
    "key lease [value [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]]",
    arity=-3,
    flags=Flags.WRITE | Flags.DENYOOM | Flags.FAST,
    keys=Keys(1, 1, 1, "OW update"),
)
def setl(db: Database, key: bytes, token: bytes, *words: bytes) -> Reply:
    """Sets a value if the lease still holds, and ends the lease; without a value it only ends it."""
    number = integer(token)
    options = arguments.value_options(words[1:], reading=False)
    if options.condition is not None or options.get:
        raise Error(errors.SYNTAX)
    deadline = options.deadline(db.keyspace.now, "kv.setl")
    if not db.leases.give_back(key, number, db.keyspace.now):
        return None
    if words:
        store(db, key, words[0], deadline, keep_ttl=options.keep_ttl and db.seek(key) is not None)
    return OK
