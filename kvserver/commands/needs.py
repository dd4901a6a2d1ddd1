"""What a command needs to be allowed: its name and categories, its keys, channels and databases, read off its words.

COMMAND tells this to clients; access control asks it before a command is run. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from kvserver.access.rules import Needs
from kvserver.commands.arguments import as_integer
from kvserver.commands.registry import COMMANDS, Command, Flags, Group, find, key_places, named
from kvserver.protocol.replies import Error
from kvserver.session import Session

CATEGORIES = (
    "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo", "stream",
    "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction", "scripting",
)  # fmt: skip
"""Every access category, in the order in which they are told. Those of other types of value have no command here, but
rules that name them are valid."""
_GROUP_CATEGORY = {
    Group.STRING: "string",
    Group.BITMAP: "bitmap",
    Group.GENERIC: "keyspace",
    Group.CONNECTION: "connection",
    Group.SCRIPTING: "scripting",
    Group.TRANSACTIONS: "transaction",
    Group.PUBSUB: "pubsub",
}
_WRITES = {"insert", "update", "delete"}


def categories(entry: Command) -> list[str]:
    """A command's access categories: those its flags and group imply, and those its row adds or (``!``) takes."""
    if entry.subcommands:
        return ["slow"] if entry.name != "command" else ["slow", "connection"]
    names = set(entry.categories) | {"fast" if entry.flags & Flags.FAST else "slow"}
    if group := _GROUP_CATEGORY.get(entry.group):
        names.add(group)
    if entry.flags & Flags.WRITE:
        names.add("write")
    if entry.flags & Flags.READONLY:
        names.add("read")
    if entry.flags & Flags.BLOCKING:
        names.add("blocking")
    if entry.flags & Flags.ADMIN:
        names |= {"admin", "dangerous"}
    return [name for name in CATEGORIES if name in names and f"!{name}" not in names]


def keys_and_access(entry: Command, words: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
    """Each key of a command, with what is done to it in COMMAND INFO's words.

    Raises:
        Error: the argument that tells how many keys there are does not.
    """
    for number, index in enumerate(key_places(entry, words)):
        assert entry.keys is not None
        access = entry.keys.second if number and entry.keys.second else entry.keys.access
        yield words[index], _access_by_options(entry.name, words) if "variable_flags" in access else access


def _access_by_options(name: str, words: Sequence[bytes]) -> str:
    """What SET or BITFIELD does to its key."""
    given = [word.upper() for word in words]
    if name == "set":
        return "RW access update" if b"GET" in given[3:] else "OW update"
    place = 2
    while place < len(given):
        size = {b"GET": 3, b"OVERFLOW": 2}.get(given[place])
        if size is None or place + size > len(given):
            return "RW access update"
        place += size
    return "RO access"


def all_needs(entry: Command, words: Sequence[bytes], session: Session) -> list[Needs]:
    """What must be allowed for a command: what it needs, and what one that it is to run needs (KV.ONCE)."""
    needs = [needs_of(entry, words, session)]
    if (inner := run_by(entry, words)) is not None:
        needs.append(needs_of(inner, words[3:], session))
    return needs


def run_by(entry: Command, words: Sequence[bytes]) -> Command | None:
    """The command that KV.ONCE is to run, with ``words`` from the third on; None for other commands.

    None also if it is no command, or has too few arguments: then nothing is run.
    """
    inner = find(COMMANDS, words[3]) if entry.name == "kv.once" else None
    return None if inner is None or len(words) - 3 < inner.minimum else inner


def needs_of(entry: Command, words: Sequence[bytes], session: Session) -> Needs:
    """What one command must be allowed to do.

    Wrong arguments need nothing: the command is an error then, and does nothing.
    """
    keys: list[tuple[bytes, bool, bool]] = []
    try:
        for key, access in keys_and_access(entry, words):
            done = access.split()
            keys.append((key, "access" in done, not _WRITES.isdisjoint(done)))
    except Error:
        keys = []
    return Needs(
        entry.name.encode("ascii"),
        frozenset(name.encode("ascii") for name in categories(entry)),
        words[1] if len(words) > 1 else None,
        keys=keys,
        channels=words[1:2] if entry.name in _PUBLISHES else words[1:] if entry.name in _SUBSCRIBES else (),
        channel_patterns=words[1:] if entry.name == "psubscribe" else (),
        selected=session.db if _is_on_database(entry) else None,
        databases=_databases(entry, words, len(session.keyspace.databases)),
    )


_PUBLISHES = {"publish", "spublish"}
_SUBSCRIBES = {"subscribe", "ssubscribe"}


def _is_on_database(entry: Command) -> bool:
    has_keys = entry.keys is not None and entry.keys.access != "not_key"
    return (entry.on_database or has_keys) and entry.name not in ("flushall", "swapdb")


def _databases(entry: Command, words: Sequence[bytes], count: int) -> Sequence[int] | None:
    match entry.name:
        case "flushall":
            return None
        case "select" | "swapdb":
            return _existing(words[1:], count)
        case "move":
            return _existing(words[2:3], count)
        case "copy":
            given = (word for before, word in pairwise(words[3:]) if before.upper() == b"DB")
            return _existing(given, count)
    return ()


def _existing(words: Iterable[bytes], count: int) -> list[int]:
    return [number for number in map(as_integer, words) if number is not None and 0 <= number < count]


class _Registered:
    """The table of commands as rules see it."""

    def is_command(self, name: bytes) -> bool:
        return named(name) is not None

    def is_container(self, name: bytes) -> bool:
        entry = COMMANDS.get(name)
        return entry is not None and bool(entry.subcommands)

    def is_category(self, name: bytes) -> bool:
        return name.decode("latin-1") in CATEGORIES


CATALOGUE = _Registered()
"""What there is to allow and forbid."""
