"""The users of one server: by name, with what each may do; and the file they are kept in.

Locking: changes are made one at a time, under one lock; whoever reads takes none, for each user's permissions and the
table itself are only ever replaced as a whole. No lock is held across a file's writing but the one that orders changes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from hmac import compare_digest
from pathlib import Path

from kvserver.access.rules import UNLIMITED, Catalogue, Permissions, RuleError, digest, whole_rules

DEFAULT = b"default"
_NOBODY = Permissions(passwords=(digest(b""),))
"""Whom a wrong name is compared with, so that it takes as long as a wrong password."""
_OPEN = Permissions(enabled=True, any_password=True, root=UNLIMITED)


class User:
    """One user. Sessions point at it, so what changes here holds for their next command."""

    __slots__ = ("name", "permissions")

    def __init__(self, name: bytes, permissions: Permissions) -> None:
        self.name = name
        self.permissions = permissions

    def __str__(self) -> str:
        return self.name.decode("utf-8", "surrogateescape")


def owner() -> User:
    """Whoever runs the program that the server is in: a user who may do everything, whatever others may."""
    return User(b"owner", _OPEN)


class AccessFileError(Exception):
    """The file of users cannot be used; the text says where and why."""


class Users:
    """All users.

    Args:
        changed: called after each change, with no lock of this file's held.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self._changing = threading.Lock()
        self.default = User(DEFAULT, _OPEN)
        self._table: dict[bytes, User] = {DEFAULT: self.default}

    @property
    def are_limited(self) -> bool:
        """Whether there is a user who may not do everything."""
        return any(not user.permissions.is_unlimited for user in self._table.values())

    @property
    def is_open(self) -> bool:
        """Whether whoever connects is let in without a password."""
        permissions = self.default.permissions
        return permissions.enabled and permissions.any_password

    def names(self) -> list[bytes]:
        """All names, sorted."""
        return sorted(self._table)

    def find(self, name: bytes) -> User | None:
        """The user of a name."""
        return self._table.get(name)

    def authenticate(self, name: bytes, password: bytes) -> User | None:
        """The user, if name and password are right and the user is enabled.

        A wrong name and a wrong password take the same time; passwords are compared in constant time.
        """
        user, given = self._table.get(name), digest(password)
        permissions = _NOBODY if user is None else user.permissions
        matches = permissions.any_password
        for known in permissions.passwords:
            matches |= compare_digest(known, given)
        return user if matches and permissions.enabled else None

    def set(self, name: bytes, rules: Sequence[bytes], catalogue: Catalogue) -> None:
        """Change a user, or make one; all rules or none.

        ``catalogue`` says what they may name.

        Raises:
            UnusableRuleError: one of them cannot be applied, and which.
            RuleError: a selector is never closed.
        """
        with self._changing:
            user = self._table.get(name)
            permissions = _applied(Permissions() if user is None else user.permissions, rules, catalogue)
            if user is None:
                self._table = {**self._table, name: User(name, permissions)}
            else:
                user.permissions = permissions
        self._changed()

    def set_password(self, password: str | None) -> None:
        """Give the default user one password, by its SHA-256; None lets everybody in."""
        with self._changing:
            self.default.permissions = replace(
                self.default.permissions,
                any_password=password is None,
                passwords=() if password is None else (password,),
            )
        self._changed()

    def delete(self, name: bytes) -> bool:
        """Remove a user; whether there was one. Sessions of theirs are for the caller to end."""
        with self._changing:
            table = dict(self._table)
            found = table.pop(name, None)
            self._table = table
        self._changed()
        return found is not None

    # The file

    def load(self, path: str, catalogue: Catalogue) -> None:
        """Replace all users by those of a file, or none if anything is wrong with it.

        A user who exists before and after keeps their sessions; the default user is open if the file has none.

        Raises:
            AccessFileError: it cannot be read, or a line of it cannot be used.
        """
        try:
            lines = Path(path).read_bytes().splitlines()
        except OSError as error:
            raise AccessFileError(f"{path}: {error.strerror}") from None
        given: dict[bytes, Permissions] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith(b"#"):
                continue
            _read_line(f"{path}:{number}", words, given, catalogue)
        with self._changing:
            table = {DEFAULT: self.default}
            self.default.permissions = given.pop(DEFAULT, _OPEN)
            for name, permissions in given.items():
                user = table[name] = self._table.get(name) or User(name, permissions)
                user.permissions = permissions
            self._table = table
        self._changed()

    def save(self, path: str) -> None:
        """Write all users to the file: a new one, on disk before it takes the old one's place.

        Raises:
            AccessFileError: it cannot be written; the old one is as it was.
        """
        with self._changing:
            new = f"{path}.{os.getpid()}.tmp"
            try:
                Path(new).touch(mode=0o600)
                with Path(new).open("wb") as file:
                    file.writelines(line + b"\n" for line in self.lines())
                    file.flush()
                    os.fsync(file.fileno())
                Path(new).replace(path)
            except OSError as error:
                with suppress(OSError):
                    Path(new).unlink()
                raise AccessFileError(f"{path}: {error.strerror}") from None

    def lines(self) -> list[bytes]:
        """A line a user, as in the file and in ACL LIST."""
        table = self._table
        return [b"user %b %b" % (name, bytes(table[name].permissions)) for name in sorted(table)]


class UnusableRuleError(RuleError):
    """A rule that cannot be applied, and which one it is."""

    def __init__(self, rule: bytes, why: str) -> None:
        super().__init__(why)
        self.rule = rule


def _applied(permissions: Permissions, rules: Sequence[bytes], catalogue: Catalogue) -> Permissions:
    for rule in whole_rules(rules):
        try:
            permissions = permissions.changed(rule, catalogue)
        except RuleError as error:
            raise UnusableRuleError(rule, str(error)) from None
    return permissions


def _read_line(place: str, words: list[bytes], given: dict[bytes, Permissions], catalogue: Catalogue) -> None:
    if words[0] != b"user" or len(words) < 2:
        raise AccessFileError(f"{place}: a line begins with the word user and a name")
    name = words[1]
    if name in given:
        raise AccessFileError(f"{place}: the user {name.decode('utf-8', 'replace')} has been told of before")
    try:
        given[name] = _applied(Permissions(), words[2:], catalogue)
    except RuleError as error:
        raise AccessFileError(f"{place}: {error}") from None
