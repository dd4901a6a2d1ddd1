"""What the server can do: COMMAND for programs, HELP for people. All of it is read off the registry."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from textwrap import wrap

from kvserver import errors
from kvserver.commands.containers import add_help
from kvserver.commands.needs import categories, keys_and_access
from kvserver.commands.registry import (
    COMMANDS,
    Command,
    Flags,
    Group,
    Keys,
    Runs,
    command,
    every,
    find,
    key_places,
    named,
)
from kvserver.commands.syntax import parse_syntax
from kvserver.protocol.replies import Error, Reply, Set, SimpleString, Verbatim
from kvserver.session import Session
from kvserver.store.glob import compile_glob

_command = partial(
    command,
    group=Group.SERVER,
    runs=Runs.ON_SESSION,
    flags=Flags.LOADING | Flags.STALE,
    categories=("connection",),
)
_NAMES = "[command-name [command-name ...]]"
_UNORDERED = ("nondeterministic_output_order",)


@_command("COMMAND", "", arity=-1, since="2.8.13", complexity="O(N), N commands", tips=_UNORDERED)
def command_(_session: Session) -> Reply:
    """Returns what clients need to know about every command."""
    return [_entry(entry) for entry in every()]


add_help("COMMAND", group=Group.SERVER, since="5.0.0", extra=("connection",))


@_command("COMMAND|COUNT", "", arity=2, since="2.8.13")
def command_count(_session: Session) -> int:
    """Returns how many commands there are."""
    return sum(1 for _ in every())


@_command("COMMAND|INFO", _NAMES, arity=-2, since="2.8.13", complexity="O(N), N commands", tips=_UNORDERED)
def command_info(_session: Session, *names: bytes) -> Reply:
    """Returns what clients need to know about the named commands, null for one that does not exist."""
    if not names:
        return [_entry(entry) for entry in every()]
    found = map(named, names)
    return [None if entry is None else _entry(entry) for entry in found]


def _simple(words: Iterable[str]) -> list[Reply]:
    return [SimpleString(word.encode("ascii")) for word in words]


def _entry(entry: Command) -> Reply:
    keys = entry.keys
    return [
        entry.name.encode("ascii"),
        entry.arity,
        Set(_simple(flag_names(entry))),
        *((keys.first, keys.last, keys.step) if keys and not keys.count else (0, 0, 0)),
        Set(_simple(f"@{name}" for name in categories(entry))),
        Set(tip.encode("ascii") for tip in entry.tips),
        Set(_key_specs(keys) if keys else []),
        [_entry(subcommand) for subcommand in every(entry.subcommands)],
    ]


def flag_names(entry: Command) -> list[str]:
    """A command's flags as COMMAND INFO spells them."""
    movable = ["movablekeys"] if entry.keys and entry.keys.count else []
    return [flag.name.lower() for flag in entry.flags if flag.name] + movable


def _key_specs(keys: Keys) -> list[Reply]:
    if keys.count:
        return [_counted_keys_spec(keys)]
    if keys.second is not None:
        second = (keys.last, 0) if keys.last >= 0 else (keys.first + 1, keys.last)
        return [_key_spec(keys.access, keys.first, 0, 1), _key_spec(keys.second, *second, 1)]
    return [_key_spec(keys.access, keys.first, keys.last - keys.first if keys.last >= 0 else keys.last, keys.step)]


def _counted_keys_spec(keys: Keys) -> Reply:
    return {
        b"flags": Set(_simple(keys.access.split())),
        b"begin_search": {b"type": b"index", b"spec": {b"index": keys.count}},
        b"find_keys": {b"type": b"keynum", b"spec": {b"keynumidx": 0, b"firstkey": 1, b"keystep": keys.step}},
    }


def _key_spec(access: str, first: int, last: int, step: int) -> Reply:
    """Where keys are, in the newer form: from word ``first`` on, up to ``last`` words further (negative: the end)."""
    return {
        b"flags": Set(_simple(access.split())),
        b"begin_search": {b"type": b"index", b"spec": {b"index": first}},
        b"find_keys": {b"type": b"range", b"spec": {b"lastkey": last, b"keystep": step, b"limit": 0}},
    }


@_command(
    "COMMAND|LIST",
    "[FILTERBY <MODULE module | ACLCAT category | PATTERN pattern>]",
    arity=-2,
    since="7.0.0",
    complexity="O(N), N commands",
    tips=_UNORDERED,
)
def command_list(_session: Session, *words: bytes) -> Reply:
    """Returns the names of all commands, or of those that a filter picks."""
    entries = [each for entry in every() for each in (entry, *every(entry.subcommands))]
    if not words:
        return [entry.name.encode("ascii") for entry in entries]
    if len(words) != 3 or words[0].upper() != b"FILTERBY":
        raise Error(errors.SYNTAX)
    names: list[Reply] = []
    match words[1].upper():
        case b"MODULE":
            pass
        case b"ACLCAT":
            wanted = words[2].lower().decode("latin-1")
            names += [entry.name.encode("ascii") for entry in entries if wanted in categories(entry)]
        case b"PATTERN":
            matches = compile_glob(words[2].lower())
            names += [name for name in (entry.name.encode("ascii") for entry in entries) if matches(name)]
        case _:
            raise Error(errors.SYNTAX)
    return names


@_command("COMMAND|DOCS", _NAMES, arity=-2, since="7.0.0", complexity="O(N), N commands", tips=_UNORDERED)
def command_docs(_session: Session, *names: bytes) -> Reply:
    """Returns the documentation of the named commands, or of all."""
    entries = map(named, names) if names else every()
    return {entry.name.encode("ascii"): _docs(entry) for entry in entries if entry is not None}


def _docs(entry: Command) -> Reply:
    docs: dict[bytes, Reply] = {
        b"summary": entry.summary.encode("utf-8"),
        b"since": entry.since.encode("ascii"),
        b"group": entry.group.value.encode("ascii"),
        b"complexity": entry.complexity.encode("utf-8"),
    }
    if entry.syntax and not entry.subcommands:
        docs[b"arguments"] = parse_syntax(entry.syntax)
    if entry.subcommands:
        docs[b"subcommands"] = {sub.name.encode("ascii"): _docs(sub) for sub in every(entry.subcommands)}
    return docs


@_command("COMMAND|GETKEYS", "command [argument ...]", arity=-3, since="2.8.13", complexity="O(N), N arguments")
def command_getkeys(_session: Session, *words: bytes) -> Reply:
    """Returns the keys among the arguments of a command."""
    entry = _whole_command(words)
    return [words[index] for index in key_places(entry, words)]


@_command(
    "COMMAND|GETKEYSANDFLAGS",
    "command [argument ...]",
    arity=-3,
    since="7.0.0",
    complexity="O(N), N arguments",
)
def command_getkeysandflags(_session: Session, *words: bytes) -> Reply:
    """Returns the keys among the arguments of a command, and what it does to each."""
    entry = _whole_command(words)
    return [[key, Set(_simple(access.split()))] for key, access in keys_and_access(entry, words)]


def _whole_command(words: tuple[bytes, ...]) -> Command:
    entry = find(COMMANDS, words[0])
    if entry is not None and entry.subcommands and len(words) > 1:
        entry = find(entry.subcommands, words[1])
    if entry is None:
        raise Error("ERR Invalid command specified")
    if entry.keys is None or entry.keys.access == "not_key":
        raise Error("ERR The command has no key arguments")
    if not entry.minimum <= len(words) <= entry.maximum:
        raise Error("ERR Invalid number of arguments specified for command")
    return entry


# HELP

_COLUMNS = 78
_INSIDE = re.compile(r"(?<![|\]]) (?![\[|])")
"""A blank of a syntax line that no option begins or ends at."""


@command(
    "HELP",
    "[command]",
    group=Group.CONNECTION,
    runs=Runs.ON_SESSION,
    arity=-1,
    flags=Flags.LOADING | Flags.STALE,
)
def help_(_session: Session, *words: bytes) -> Verbatim:
    """Explains a command, or lists them all. For people on telnet; an addition of kvserver."""
    if not words:
        return Verbatim(_overview().encode("utf-8"))
    entry = named(b"|".join(words[:2])) or named(words[0])
    if entry is None:
        raise Error(f"ERR there is no command '{errors.quote(words[0])}'; HELP lists them")
    return Verbatim(_explanation(entry).encode("utf-8"))


def _overview() -> str:
    lines = ["Commands (HELP command explains one; QUIT leaves):"]
    for group in Group:
        if names := sorted(entry.name.upper() for entry in every() if entry.group is group):
            lines += ["", f"{group.value}:", *_wrapped(" ".join(names), "  ")]
    return _text(lines)


def _explanation(entry: Command) -> str:
    usage = f"{_spoken(entry)} {entry.syntax}".rstrip()
    # Broken between options only, not between an option and its value.
    lines = [line.replace("\xa0", " ") for line in _wrapped(_INSIDE.sub("\xa0", usage), "", "    ")]
    for paragraph in entry.documentation.split("\n\n"):
        lines += ["", *_wrapped(paragraph)]
    lines += ["", f"Complexity: {entry.complexity}. Since: {entry.since}."]
    for subcommand in every(entry.subcommands):
        lines += _wrapped(f"{_spoken(subcommand)}: {subcommand.summary}", "  ", "      ")
    return _text(lines)


def _spoken(entry: Command) -> str:
    return entry.name.replace("|", " ").upper()


def _wrapped(text: str, first: str = "", other: str | None = None) -> list[str]:
    other = first if other is None else other
    return wrap(text, _COLUMNS, initial_indent=first, subsequent_indent=other, break_on_hyphens=False)


def _text(lines: list[str]) -> str:
    """With the line ends of telnet: after a bare line feed, some of its programs go on in the middle of the line."""
    return "\r\n".join(lines)
