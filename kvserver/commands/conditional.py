"""Setting and deleting on a condition: that a key exists, or what its value or the value's digest is.

Each handler runs with the keyspace lock held, so nothing changes between the look and the change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from kvserver import errors
from kvserver.commands import arguments
from kvserver.commands.arguments import INT32_MAX, as_integer
from kvserver.commands.registry import Flags, Group, Keys, command
from kvserver.protocol.replies import Error
from kvserver.store.memory import Database
from kvserver.store.turns import in_turns

try:
    import xxhash
except ImportError:  # it is an extra
    _xxh3: Callable[[bytes], str] | None = None
else:
    _xxh3 = xxhash.xxh3_64_hexdigest

_string = partial(command, group=Group.STRING)
_DIGEST = re.compile(rb"[0-9a-fA-F]{16}")
VALUE_CONDITIONS = (b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE")


def digest_of(value: bytes) -> bytes:
    """XXH3-64 as 16 hexadecimal digits.

    Raises:
        Error: the package that computes it is not installed.
    """
    if _xxh3 is None:
        raise Error(errors.NO_DIGEST)
    return _xxh3(bytes(value)).encode("ascii")


def is_met(condition: bytes | None, operand: bytes, value: bytes | None) -> bool:
    """Whether a condition holds for a value, None being that of a missing key.

    Args:
        condition: NX, XX, IFEQ, IFNE, IFDEQ, IFDNE; None is always met.
        operand: the value, or the digest, to compare with.
        value: what the key has now.

    Raises:
        Error: the operand is no digest where one is wanted, or digests cannot be computed.
    """
    if condition in (b"IFDEQ", b"IFDNE") and not _DIGEST.fullmatch(operand):
        raise Error(errors.NOT_A_DIGEST)
    match condition:
        case b"NX":
            return value is None
        case b"XX":
            return value is not None
        case b"IFEQ":
            return value == operand
        case b"IFNE":
            return value != operand
        case b"IFDEQ":
            return value is not None and digest_of(value) == operand.lower()
        case b"IFDNE":
            return value is None or digest_of(value) != operand.lower()
    return True


@_string("DIGEST", "key", arity=2, flags=Flags.READONLY | Flags.FAST, keys=Keys(1, 1, 1, "RO access"), since="8.4.0",
         complexity="O(N), N the length of the value")  # fmt: skip
def digest(db: Database, key: bytes) -> bytes | None:
    """Returns the XXH3-64 digest of a value in hexadecimal, null for no such key."""
    value = db.get(key)
    return None if value is None else digest_of(value)


@_string(
    "DELEX",
    "key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest]",
    arity=-2,
    flags=Flags.WRITE | Flags.FAST,
    keys=Keys(1, 1, 1, "RM access delete"),
    since="8.4.0",
)
def delex(db: Database, key: bytes, *words: bytes) -> int:
    """Deletes a key if its value, or the value's digest, is or is not the one given; 1 if it was deleted, 0 if not."""
    condition, operand = None, b""
    if words:
        condition, operand = words[0].upper(), words[-1]
        if len(words) != 2 or condition not in VALUE_CONDITIONS:
            raise Error(errors.SYNTAX)
    value = db.seek(key)
    is_wanted = is_met(condition, operand, value)
    return int(value is not None and is_wanted and db.remove(key))


@_string(
    "DELIFEQ", "key value", arity=3, flags=Flags.WRITE | Flags.FAST, keys=Keys(1, 1, 1, "RM delete"), since="9.0.0"
)
def delifeq(db: Database, key: bytes, value: bytes) -> int:
    """Deletes a key if its value is the one given; 1 if it was deleted, 0 if not."""
    return int(db.seek(key) == value and db.remove(key))


@_string(
    "MSETEX",
    "numkeys key value [key value ...] [NX | XX]"
    " [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    arity=-4,
    flags=Flags.WRITE | Flags.DENYOOM,
    keys=Keys(2, 0, 2, "OW update", count=1),
    since="9.1.0",
    complexity="O(N), N keys",
    tips=("request_policy:multi_shard", "response_policy:all_succeeded"),
)
def msetex(db: Database, numkeys: bytes, *words: bytes) -> int:
    """Sets several values and one time to live, on a condition about all of the keys; 1 if all were set, 0 if none."""
    count = as_integer(numkeys)
    if count is None or not 1 <= count <= INT32_MAX:
        raise Error(errors.BAD_NUMKEYS)
    if len(words) < 2 * count:
        raise Error(errors.SYNTAX)
    pairs = list(zip(words[: 2 * count : 2], words[1 : 2 * count : 2], strict=True))
    options = arguments.value_options(words[2 * count :], reading=False)
    if options.get or options.condition in VALUE_CONDITIONS:
        raise Error(errors.SYNTAX)
    deadline = options.deadline(db.keyspace.now, "msetex")
    if not all(is_met(options.condition, b"", db.seek(key)) for key, _ in in_turns(pairs)):
        return 0
    for key, value in in_turns(pairs):
        store(db, key, value, deadline, keep_ttl=options.keep_ttl)
    return 1


def store(db: Database, key: bytes, value: bytes, deadline: int | None, *, keep_ttl: bool = False) -> None:
    """Set a value, and its deadline (ms) if there is one: in the past, it deletes the key."""
    if keep_ttl:
        db.replace(key, value)
    elif deadline is None:
        db.put(key, value)
    elif deadline <= db.keyspace.now:
        db.remove(key, "expired")
    else:
        db.put(key, value)
        db.expire_at(key, deadline)
