"""The table of commands: one row above each handler says all that is known about the command.

The row's facts (arity, flags, key positions) make COMMAND INFO and the checks in dispatch; its syntax line makes
COMMAND DOCS and HELP. Nothing is listed anywhere else.
"""

from __future__ import annotations

import ast
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from functools import cache
from inspect import cleandoc
from typing import Any, TypeVar

from kvserver.commands.arguments import as_integer
from kvserver.protocol.replies import Error

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


class Group(Enum):
    """The family a command belongs to: its heading in the docs, and its access category."""

    STRING = "string"
    BITMAP = "bitmap"
    GENERIC = "generic"
    CONNECTION = "connection"
    SERVER = "server"
    CLUSTER = "cluster"
    SCRIPTING = "scripting"
    TRANSACTIONS = "transactions"
    PUBSUB = "pubsub"


class Flags(Flag):
    """What COMMAND INFO tells about a command; the names are those clients know."""

    NONE = 0
    WRITE = auto()
    READONLY = auto()
    DENYOOM = auto()
    ADMIN = auto()
    PUBSUB = auto()
    NOSCRIPT = auto()
    BLOCKING = auto()
    LOADING = auto()
    STALE = auto()
    SKIP_MONITOR = auto()
    SKIP_COMMANDLOG = auto()
    FAST = auto()
    NO_AUTH = auto()
    NO_MANDATORY_KEYS = auto()
    NO_ASYNC_LOADING = auto()
    NO_MULTI = auto()
    ALLOW_BUSY = auto()


class Runs(Enum):
    """What a handler is given first, and what dispatch does around it."""

    ON_DATABASE = auto()
    """Gets the selected ``Database``; the keyspace lock is held for the whole call."""
    ON_SESSION = auto()
    """Gets the ``Session``; no lock is held."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where a command's keys are: first and last argument (negative from the end) and step; and what it does to them.

    ``access`` is in COMMAND INFO's words, for example ``"RO access"``. A second key with other access is ``second``.
    Where an argument tells how many keys follow, ``count`` is its place and ``last`` means nothing.
    """

    first: int
    last: int
    step: int
    access: str
    second: str | None = None
    count: int = 0


@dataclass(slots=True, eq=False)
class Command:
    """One command or subcommand."""

    name: str  # lower case; a subcommand as "container|name"
    handler: Callable[..., Any]
    on_database: bool  # whether it gets the database under the lock, or the session without
    words: int  # how many words name it: 1, or 2 for a subcommand
    group: Group
    minimum: int  # words, with the name (and the container's)
    maximum: int
    flags: Flags
    keys: Keys | None
    syntax: str
    since: str
    complexity: str
    categories: tuple[str, ...]
    tips: tuple[str, ...]
    glances: bool  # its reply is what store.glance gives for its one argument, if that can tell
    one_step: int  # with so many words, its change is one step of one key's value
    brief: bool  # neighbours in a pipeline are run together (runs.py)
    subcommands: dict[bytes, Command] = field(default_factory=dict)

    writes: bool = field(init=False)

    def __post_init__(self) -> None:
        self.writes = Flags.WRITE in self.flags

    @property
    def arity(self) -> int:
        """As in COMMAND INFO: the number of words, or minus the least number when it varies."""
        return self.minimum if self.maximum == self.minimum else -self.minimum

    @property
    def summary(self) -> str:
        """One sentence: the first line of the handler's docstring."""
        return self.documentation.partition("\n")[0]

    @property
    def documentation(self) -> str:
        """The handler's docstring, cleaned."""
        handler = self.handler
        return cleandoc(handler.__doc__ or _docstrings(handler.__module__).get(handler.__name__, ""))


@cache
def _docstrings(module: str) -> dict[str, str]:
    """The docstrings of a module's functions, by its source, if it is there: what is compiled has none."""
    package, _, name = module.rpartition(".")
    source = None
    with suppress(OSError):
        source = pkgutil.get_data(package, f"{name}.py") if package else None
    functions = [node for node in ast.parse(source or b"").body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_docstring(node) or "" for node in functions}


COMMANDS: dict[bytes, Command] = {}
"""By name, in lower and in upper case; :func:`find` knows every other case."""

DIRECT: dict[bytes, Command] = {}
"""Those of ``COMMANDS`` that one word names: what dispatch tries first."""


def command(
    name: str,
    syntax: str,
    *,
    group: Group,
    runs: Runs = Runs.ON_DATABASE,
    arity: int,
    flags: Flags = Flags.NONE,
    keys: Keys | None = None,
    since: str = "1.0.0",
    complexity: str = "O(1)",
    categories: tuple[str, ...] = (),
    tips: tuple[str, ...] = (),
    glances: bool = False,
    one_step: int = 0,
    brief: bool = False,
) -> Callable[[_Handler], _Handler]:
    """Register the handler below as a command.

    Args:
        name: in upper case; a subcommand as ``CONTAINER|NAME``, after its container.
        syntax: the arguments, in the notation of the command documentation; empty for none.
        group: the family.
        runs: what the handler is given, and which lock is held.
        arity: as in COMMAND INFO: the number of words, or minus the least number.
        flags: as in COMMAND INFO.
        keys: where the keys are, if it has any.
        since: the version of Redis (or Valkey) that brought it.
        complexity: in the usual notation.
        categories: access categories beyond those that group and flags imply.
        tips: hints for clients of a cluster, as in COMMAND INFO.
        glances: whether its reply is what ``store.glance`` gives for its one argument, so that it needs no lock.
        one_step: with so many words (the name is one), its change is one step of one key's value, and those who read
            without the lock need not be kept away. 0 for none: that is always right.
        brief: whether it gets the database, takes about a microsecond for most values, and replies with a value, a
            number or a word, so that neighbours in a pipeline are run together.
    """

    def register(handler: _Handler) -> _Handler:
        maximum = arity if arity > 0 else sys.maxsize
        _add(
            Command(
                name.lower(), handler, runs is Runs.ON_DATABASE, 1 + name.count("|"), group, abs(arity), maximum,
                flags, keys, syntax, since, complexity, categories, tips, glances, one_step, brief,
            )
        )  # fmt: skip
        return handler

    return register


def _add(new: Command) -> None:
    container, _, subcommand = new.name.partition("|")
    key = (subcommand or container).encode("ascii")
    table = COMMANDS[container.encode("ascii")].subcommands if subcommand else COMMANDS
    if key in table:
        raise AssertionError(f"{new.name} is registered twice")
    table[key] = table[key.upper()] = new
    if subcommand:
        for name in (container, container.upper()):
            DIRECT.pop(name.encode("ascii"), None)
    else:
        DIRECT[key] = DIRECT[key.upper()] = new


def find(table: dict[bytes, Command], name: bytes) -> Command | None:
    """Look a name up in any mixture of cases."""
    found = table.get(name)
    if found is None and len(name) <= 32:
        found = table.get(name.lower())
    return found


def every(table: dict[bytes, Command] | None = None) -> Iterator[Command]:
    """Each command of a table once; of the server's, by default."""
    for name, entry in (COMMANDS if table is None else table).items():
        if name == name.lower():
            yield entry


def key_and_channel_places(entry: Command, words: Sequence[bytes]) -> range:
    """As :func:`key_places`, with shard channels too: they have slots, as keys have.

    Raises:
        Error: as there.
    """
    keys = entry.keys
    return _span(keys, words) if keys is not None and keys.access == "not_key" else key_places(entry, words)


def _span(keys: Keys, words: Sequence[bytes]) -> range:
    return range(keys.first, (keys.last if keys.last >= 0 else len(words) + keys.last) + 1, keys.step)


def key_places(entry: Command, words: Sequence[bytes]) -> range:
    """Where the keys are among a command's words.

    Raises:
        Error: the argument that tells how many there are does not.
    """
    keys = entry.keys
    if keys is None or keys.access == "not_key":
        return range(0)
    if not keys.count:
        return _span(keys, words)
    count = as_integer(words[keys.count])
    behind = keys.first + (count or 0) * keys.step
    if count is None or count < 1 or behind > len(words):
        if Flags.NO_MANDATORY_KEYS in entry.flags:
            return range(0)
        raise Error("ERR Invalid arguments specified for command")
    return range(keys.first, behind, keys.step)


def named(name: bytes) -> Command | None:
    """A command, or a subcommand as ``container|name``."""
    container, _, subcommand = name.partition(b"|")
    entry = find(COMMANDS, container)
    if entry is None or not subcommand:
        return entry
    return find(entry.subcommands, subcommand)
