"""Permissions in the syntax of ACL SETUSER: read, kept, shown again, and asked whether a command is allowed.

Everything here is immutable. Changing a user makes a new :class:`Permissions`, so that other threads see the old ones
or the new ones and never half of a change. What a command needs is told by :class:`Needs`; this file knows no command.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Protocol

from kvserver.store.glob import compile_glob


class Catalogue(Protocol):
    """What there is to allow and forbid."""

    def is_command(self, name: bytes) -> bool:
        """Whether there is a command, or as ``container|name`` a subcommand, of this name in lower case."""

    def is_container(self, name: bytes) -> bool:
        """Whether a command only holds subcommands."""

    def is_category(self, name: bytes) -> bool:
        """Whether there is a category of this name in lower case, without its ``@``."""


class RuleError(ValueError):
    """A rule cannot be used; the text says why."""


class Reason(IntEnum):
    """Why something was denied. Of several, the greatest is told: it is the one that came nearest to being allowed."""

    COMMAND = 1
    KEY = 2
    CHANNEL = 3
    DATABASE = 4
    AUTH = 5


@dataclass(frozen=True, slots=True)
class Denial:
    """Something that may not be done, and the command, key, channel or database that it may not be done with."""

    reason: Reason
    object: bytes


@dataclass(frozen=True, slots=True)
class Needs:
    """What a command must be allowed to do, before it is run."""

    name: bytes  # in lower case; a subcommand as "container|name"
    categories: frozenset[bytes]
    argument: bytes | None = None  # the first one
    every_key: bool = False  # it may touch any
    keys: Sequence[tuple[bytes, bool, bool]] = ()  # each with whether its value is read, and whether it is written
    channels: Sequence[bytes] = ()
    channel_patterns: Sequence[bytes] = ()
    selected: int | None = None  # the database it works on, if it works on the selected one
    databases: Sequence[int] | None = ()  # others that it names; None: all there are


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """Keys that may be read, written or both."""

    text: bytes
    read: bool
    write: bool
    matches: Callable[[bytes], bool] = field(compare=False)

    def __bytes__(self) -> bytes:
        if self.read and self.write:
            return b"~" + self.text
        return (b"%R~" if self.read else b"%W~") + self.text


@dataclass(frozen=True, slots=True)
class ChannelPattern:
    """Channels that may be used."""

    text: bytes
    matches: Callable[[bytes], bool] = field(compare=False)

    def __bytes__(self) -> bytes:
        return b"&" + self.text


@dataclass(frozen=True, slots=True)
class Selector:
    """One set of rules. A command is allowed if every need of it is, by one and the same selector.

    ``rules`` are those on commands after ``+@all`` or ``-@all``, each once, in the order in which they were given: the
    last that names a command, or its category, decides. Names mean all where they are None.
    """

    all_commands: bool = False
    rules: tuple[bytes, ...] = ()
    keys: tuple[KeyPattern, ...] | None = ()
    channels: tuple[ChannelPattern, ...] | None = ()
    databases: frozenset[int] | None = None
    _decided: dict[bytes, tuple[bool, frozenset[bytes]]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_unlimited(self) -> bool:
        """Whether it allows everything."""
        limited = self.keys is not None or self.channels is not None or self.databases is not None
        return self.all_commands and not self.rules and not limited

    def denial(self, needs: Needs) -> Denial | None:
        """What of ``needs`` is not allowed, if anything."""
        if not self.allows_command(needs):
            return Denial(Reason.COMMAND, needs.name)
        if needs.every_key and self.keys is not None:
            return Denial(Reason.KEY, b"*")
        for key, read, write in needs.keys:
            if not self._allows_key(key, read=read, write=write):
                return Denial(Reason.KEY, key)
        for channel in needs.channels:
            if not self.allows_channel(channel):
                return Denial(Reason.CHANNEL, channel)
        for pattern in needs.channel_patterns:
            if not self.allows_channel(pattern, is_pattern=True):
                return Denial(Reason.CHANNEL, pattern)
        return self._database_denial(needs)

    def allows_command(self, needs: Needs) -> bool:
        """Whether the command may be run, whatever it is run with."""
        try:
            allowed, arguments = self._decided[needs.name]
        except KeyError:
            allowed, arguments = self._decided[needs.name] = self._decide(needs)
        return allowed or needs.argument in arguments

    def _decide(self, needs: Needs) -> tuple[bool, frozenset[bytes]]:
        """Whether a command is allowed, and if not, with which first arguments it is all the same."""
        container = needs.name.partition(b"|")[0]
        arguments: set[bytes] = set()
        for rule in reversed(self.rules):
            name = rule[1:]
            if name in (needs.name, container) or (name[:1] == b"@" and name[1:] in needs.categories):
                return rule[:1] == b"+", frozenset(arguments)
            if name.startswith(needs.name + b"|"):
                arguments.add(name[len(needs.name) + 1 :])
        return self.all_commands, frozenset(arguments)

    def _allows_key(self, key: bytes, *, read: bool, write: bool) -> bool:
        return self.keys is None or any(
            (pattern.read or not read) and (pattern.write or not write) and pattern.matches(key)
            for pattern in self.keys
        )

    def allows_channel(self, name: bytes, *, is_pattern: bool = False) -> bool:
        """Whether a channel may be used. A pattern is allowed if it is one of those given, letter by letter."""
        return self.channels is None or any(
            name == pattern.text if is_pattern else pattern.matches(name) for pattern in self.channels
        )

    def _database_denial(self, needs: Needs) -> Denial | None:
        if self.databases is None:
            return None
        if needs.databases is None or (needs.selected is not None and needs.selected not in self.databases):
            return Denial(Reason.DATABASE, needs.name)
        outside = [number for number in needs.databases if number not in self.databases]
        return Denial(Reason.DATABASE, b"%d" % outside[0]) if outside else None

    # Showing

    def show_commands(self) -> bytes:
        """The rules on commands, as they are given."""
        return b" ".join((b"+@all" if self.all_commands else b"-@all", *self.rules))

    def show_keys(self) -> bytes:
        """The patterns of keys, as they are given."""
        return b"~*" if self.keys is None else b" ".join(map(bytes, self.keys))

    def show_channels(self) -> bytes:
        """The patterns of channels, as they are given."""
        return b"&*" if self.channels is None else b" ".join(map(bytes, self.channels))

    def show_databases(self) -> bytes:
        """The databases, as they are given."""
        if self.databases is None:
            return b"alldbs"
        return (
            b"db=" + b",".join(b"%d" % number for number in sorted(self.databases)) if self.databases else b"resetdbs"
        )

    def __bytes__(self) -> bytes:
        """All of it, as rules that make the same selector of an empty one."""
        channels = self.show_channels()
        parts = [
            self.show_keys(),
            channels if self.channels is None else b"resetchannels " + channels,
            b"" if self.databases is None else self.show_databases(),
            self.show_commands(),
        ]
        return b" ".join(part.strip() for part in parts if part)

    # Changing

    def changed(self, rule: bytes, catalogue: Catalogue) -> Selector:
        """This selector with one more rule applied.

        Raises:
            RuleError: it is not a rule, or it has no effect.
        """
        word, sign = rule.lower(), rule[:1]
        if (plain := _PLAIN.get(word)) is not None:
            return plain(self)
        if sign in (b"+", b"-"):
            return self._with_command_rule(word, catalogue)
        if sign in (b"~", b"%"):
            return self._with_keys(rule)
        if sign == b"&":
            return self._with_channel(rule[1:])
        if word.startswith(b"db="):
            return replace(self, databases=_databases(word[3:]))
        raise RuleError("Syntax error")

    def _with_command_rule(self, rule: bytes, catalogue: Catalogue) -> Selector:
        _check_command_rule(rule, catalogue)
        name = rule[1:]
        # What an earlier rule said of the same, or of a part of it, is of no effect any more.
        kept = [old for old in self.rules if old[1:] != name and not old[1:].startswith(name + b"|")]
        return replace(self, rules=(*kept, rule), _decided={})

    def _with_keys(self, rule: bytes) -> Selector:
        flags, tilde, text = rule.partition(b"~")
        letters = flags[1:].upper()
        if not tilde or (flags and not letters) or set(letters) - set(b"RW"):
            raise RuleError("Syntax error")
        if self.keys is None:
            raise RuleError(_NO_EFFECT.format("* pattern", "allkeys", "resetkeys", "patterns"))
        if _has_blank(text):
            raise RuleError("Syntax error")
        read, write = not flags or b"R" in letters, not flags or b"W" in letters
        new = KeyPattern(text, read, write, compile_glob(text))
        patterns = {pattern.text: pattern for pattern in self.keys}
        if (old := patterns.get(text)) is not None:
            new = replace(old, read=old.read or read, write=old.write or write)
        patterns[text] = new
        return replace(self, keys=tuple(patterns.values()))

    def _with_channel(self, text: bytes) -> Selector:
        if self.channels is None:
            raise RuleError(_NO_EFFECT.format("* pattern", "allchannels", "resetchannels", "channels"))
        if _has_blank(text):
            raise RuleError("Syntax error")
        patterns = {pattern.text: pattern for pattern in self.channels}
        patterns[text] = ChannelPattern(text, compile_glob(text))
        return replace(self, channels=tuple(patterns.values()))


_NO_EFFECT = (
    "Adding a pattern after the {} (or the '{}' flag) is not valid and does not have any effect. Try '{}' to start "
    "with an empty list of {}"
)
_PLAIN: dict[bytes, Callable[[Selector], Selector]] = {
    b"allcommands": lambda selector: replace(selector, all_commands=True, rules=(), _decided={}),
    b"nocommands": lambda selector: replace(selector, all_commands=False, rules=(), _decided={}),
    b"allkeys": lambda selector: replace(selector, keys=None),
    b"resetkeys": lambda selector: replace(selector, keys=()),
    b"allchannels": lambda selector: replace(selector, channels=None),
    b"resetchannels": lambda selector: replace(selector, channels=()),
    b"alldbs": lambda selector: replace(selector, databases=None),
    b"resetdbs": lambda selector: replace(selector, databases=frozenset()),
}
_PLAIN |= {
    b"+@all": _PLAIN[b"allcommands"],
    b"-@all": _PLAIN[b"nocommands"],
    b"~*": _PLAIN[b"allkeys"],
    b"&*": _PLAIN[b"allchannels"],
}
UNLIMITED = Selector(all_commands=True, keys=None, channels=None)


def _check_command_rule(rule: bytes, catalogue: Catalogue) -> None:
    unknown = RuleError("Unknown command or category name in ACL")
    name = rule[1:]
    if name[:1] == b"@":
        if not catalogue.is_category(name[1:]):
            raise unknown
        return
    command, bar, rest = name.partition(b"|")
    if not catalogue.is_command(command):
        raise unknown
    if not bar or catalogue.is_command(name):
        return
    if not rest:
        raise RuleError("Syntax error")
    if catalogue.is_command(b"|".join(name.split(b"|")[:2])):
        raise RuleError("Allowing first-arg of a subcommand is not supported")
    if catalogue.is_container(command) or rule[:1] == b"-":
        raise unknown


def _databases(text: bytes) -> frozenset[int]:
    if not re.fullmatch(rb"-?[0-9]{1,9}(,-?[0-9]{1,9})*", text):
        raise RuleError("Syntax error")
    numbers = frozenset(map(int, text.split(b",")))
    if min(numbers) < 0:
        raise RuleError("The provided database ID is out of range")
    return numbers


def _has_blank(text: bytes) -> bool:
    return any(byte in b" \t\r\n\v\f\0" for byte in text)


@dataclass(frozen=True, slots=True)
class Permissions:
    """All that is known about a user but the name. Passwords are kept as SHA-256, in hexadecimal."""

    enabled: bool = False
    any_password: bool = False
    passwords: tuple[str, ...] = field(default=(), repr=False)
    root: Selector = Selector()
    selectors: tuple[Selector, ...] = ()

    @property
    def is_unlimited(self) -> bool:
        """Whether everything is allowed, so that no command need be looked at."""
        return self.root.is_unlimited

    def denial(self, needs: Needs) -> Denial | None:
        """Why a command is not allowed; None if one of the selectors allows all of it."""
        worst: Denial | None = None
        for selector in (self.root, *self.selectors):
            denial = selector.denial(needs)
            if denial is None:
                return None
            if worst is None or denial.reason > worst.reason:
                worst = denial
        return worst

    def flags(self) -> list[bytes]:
        """What ACL GETUSER shows as flags."""
        return [b"on" if self.enabled else b"off", *([b"nopass"] if self.any_password else [])]

    def __bytes__(self) -> bytes:
        """As rules that make the same permissions of none."""
        parts = [
            *self.flags(),
            *(b"#" + password.encode("ascii") for password in self.passwords),
            bytes(self.root),
            *(b"(%b)" % bytes(selector) for selector in self.selectors),
        ]
        return b" ".join(parts)

    def changed(self, rule: bytes, catalogue: Catalogue) -> Permissions:
        """These permissions with one more rule applied.

        Raises:
            RuleError: it is not a rule, or it cannot be applied.
        """
        if (plain := _OF_A_USER.get(rule.lower())) is not None:
            return plain(self)
        sign, rest = rule[:1], rule[1:]
        if sign == b">":
            return self._with_password(digest(rest))
        if sign == b"#":
            return self._with_password(_hash(rest))
        if sign == b"<":
            return self._without_password(digest(rest))
        if sign == b"!":
            return self._without_password(_hash(rest))
        if sign == b"(" and rule[-1:] == b")":
            selector = Selector()
            for inner in rule[1:-1].split():
                selector = selector.changed(inner, catalogue)
            return replace(self, selectors=(*self.selectors, selector))
        return replace(self, root=self.root.changed(rule, catalogue))

    def _with_password(self, password: str) -> Permissions:
        kept = tuple(old for old in self.passwords if old != password)
        return replace(self, any_password=False, passwords=(*kept, password))

    def _without_password(self, password: str) -> Permissions:
        if password not in self.passwords:
            raise RuleError("The password you are trying to remove from the user does not exist")
        return replace(self, passwords=tuple(old for old in self.passwords if old != password))


_OF_A_USER: dict[bytes, Callable[[Permissions], Permissions]] = {
    b"on": lambda user: replace(user, enabled=True),
    b"off": lambda user: replace(user, enabled=False),
    b"nopass": lambda user: replace(user, any_password=True, passwords=()),
    b"resetpass": lambda user: replace(user, any_password=False, passwords=()),
    b"clearselectors": lambda user: replace(user, selectors=()),
    b"reset": lambda _user: Permissions(),
    # There is no payload to sanitize without RESTORE; files of Redis' say one or the other.
    b"sanitize-payload": lambda user: user,
    b"skip-sanitize-payload": lambda user: user,
}


def digest(password: bytes) -> str:
    """What is kept of a password."""
    return hashlib.sha256(password).hexdigest()


def _hash(text: bytes) -> str:
    if not re.fullmatch(rb"[0-9a-f]{64}", text):
        raise RuleError(
            "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
        )
    return text.decode("ascii")


def whole_rules(words: Iterable[bytes]) -> list[bytes]:
    """Put together what belongs to one selector: rules may stand in parentheses with blanks between them.

    Raises:
        RuleError: a parenthesis is never closed.
    """
    rules: list[bytes] = []
    inside: list[bytes] = []
    for word in words:
        if inside or (word.startswith(b"(") and not word.endswith(b")")):
            inside.append(word)
            if word.endswith(b")"):
                rules.append(b" ".join(inside))
                inside = []
        else:
            rules.append(word)
    if inside:
        raise RuleError(f"Unmatched parenthesis in acl selector starting at '{inside[0].decode('utf-8', 'replace')}'.")
    return rules
