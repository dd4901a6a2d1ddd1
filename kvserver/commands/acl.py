"""ACL: users and what each may do. The rules themselves are in ``access``; this is how clients see and change them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

from kvserver import errors
from kvserver.access.rules import Denial, Reason, RuleError, Selector
from kvserver.access.users import DEFAULT, AccessFileError, UnusableRuleError, User, Users
from kvserver.commands.arguments import as_integer
from kvserver.commands.client import describe
from kvserver.commands.containers import add_help
from kvserver.commands.needs import CATALOGUE, CATEGORIES, all_needs, categories
from kvserver.commands.registry import COMMANDS, Flags, Group, Runs, command, every, find
from kvserver.protocol.replies import OK, Error, Reply, Set, SimpleString
from kvserver.session import Kind, Session

_acl = partial(command, group=Group.SERVER, runs=Runs.ON_SESSION, since="6.0.0")
_FOR_ALL = Flags.NOSCRIPT | Flags.LOADING | Flags.STALE
_ADMIN = _FOR_ALL | Flags.ADMIN
_ALL_NODES = ("request_policy:all_nodes", "response_policy:all_succeeded")
_MOST_BITS = 4096
_FileAction = Callable[[Users, str], None]
_NO_FILE = (
    "ERR This instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command "
    "and then issue a CONFIG REWRITE (assuming you have a configuration file set) in order to store users in the "
    "configuration."
)


def deny(session: Session, denial: Denial, context: str, username: bytes | None = None) -> None:
    """Count and log that something was denied."""
    state = session.state
    state.stats.count_denial(denial.reason)
    state.denials.add(
        denial,
        context,
        session.user.name if username is None else username[:_LONGEST_NAME],
        describe(session).rstrip(b"\n"),
        now=state.clock(),
        limit=state.config.acllog_max_len,
    )


_LONGEST_NAME = 128
"""Bytes of a name that somebody tried, in ACL LOG."""


def denied(session: Session, denial: Denial) -> Error:
    """What a client is told that was not allowed something."""
    match denial.reason:
        case Reason.COMMAND:
            return errors.no_permission(str(session.user), denial.object.decode("ascii"))
        case Reason.KEY:
            return Error(errors.NO_KEY_PERMISSION)
        case Reason.CHANNEL:
            return Error(errors.NO_CHANNEL_PERMISSION)
    return Error(errors.NO_DATABASE_PERMISSION)


@_acl("ACL", "subcommand [argument ...]", arity=-2)
def acl(_session: Session) -> Reply:
    """Manages users and what each may do, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("ACL", group=Group.SERVER, since="6.0.0")


@_acl("ACL|CAT", "[category]", arity=-2, flags=_FOR_ALL, complexity="O(N), N commands")
def acl_cat(_session: Session, *words: bytes) -> Reply:
    """Returns the categories of commands, or the commands of a category."""
    if not words:
        return [name.encode("ascii") for name in CATEGORIES]
    if len(words) > 1:
        raise errors.SubcommandUsageError
    wanted = words[0].lower().decode("latin-1")
    if wanted not in CATEGORIES:
        raise Error(f"ERR Unknown category '{errors.quote(words[0])}'")
    entries = (each for entry in every() for each in (entry, *every(entry.subcommands)))
    return [entry.name.encode("ascii") for entry in entries if wanted in categories(entry)]


@_acl("ACL|WHOAMI", "", arity=2, flags=_FOR_ALL)
def acl_whoami(session: Session) -> bytes:
    """Returns the name of the connection's user."""
    return session.user.name


@_acl("ACL|USERS", "", arity=2, flags=_ADMIN, complexity="O(N), N users")
def acl_users(session: Session) -> Reply:
    """Returns the names of all users."""
    return list[Reply](session.state.users.names())


@_acl("ACL|LIST", "", arity=2, flags=_ADMIN, complexity="O(N), N users")
def acl_list(session: Session) -> Reply:
    """Returns a line a user, as they stand in the ACL file. Of passwords it shows the SHA-256."""
    return list[Reply](session.state.users.lines())


@_acl("ACL|GETUSER", "username", arity=3, flags=_ADMIN, complexity="O(N), N rules")
def acl_getuser(session: Session, name: bytes) -> Reply:
    """Returns all that is known about a user, null for no such user."""
    user = session.state.users.find(name)
    if user is None:
        return None
    permissions = user.permissions
    return {
        b"flags": Set(permissions.flags()),
        b"passwords": [password.encode("ascii") for password in permissions.passwords],
        **_shown(permissions.root),
        b"selectors": [_shown(selector) for selector in permissions.selectors],
    }


def _shown(selector: Selector) -> dict[bytes, Reply]:
    return {
        b"commands": selector.show_commands(),
        b"keys": selector.show_keys(),
        b"channels": selector.show_channels(),
        b"databases": selector.show_databases(),
    }


@_acl("ACL|SETUSER", "username [rule [rule ...]]", arity=-3, flags=_ADMIN, complexity="O(N), N rules", tips=_ALL_NODES)
def acl_setuser(session: Session, name: bytes, *rules: bytes) -> SimpleString:
    """Changes a user by the rules given, all or none, or makes one, who at first may do nothing.

    `on` and `off` enable and disable; `>password` adds a password and `<password` removes it; `nopass` lets anybody in.
    `+command`, `-command`, `+@category` and `-@category` allow and forbid commands, `+config|get` a subcommand;
    `~pattern` allows keys, `%R~pattern` reading them and `%W~pattern` writing them; `&pattern` allows channels, and
    `db=0,1` databases. `(rules)` adds a selector: a command is allowed if all that it needs is allowed by one of them.
    """
    if any(byte in name for byte in b" \t\r\n\v\f\0"):
        raise Error("ERR Usernames can't contain spaces or null characters")
    users = session.state.users
    try:
        users.set(name, rules, CATALOGUE)
    except UnusableRuleError as error:
        raise Error(f"ERR Error in ACL SETUSER modifier '{errors.quote(error.rule)}': {error}") from None
    except RuleError as error:
        raise Error(f"ERR {error}") from None
    _end_those_not_allowed(session)
    return OK


def _end_those_not_allowed(session: Session) -> None:
    """End connections whose user is gone, or may not use a channel they are subscribed to."""
    state = session.state
    for other in state.clients.sessions():
        if state.users.find(other.user.name) is other.user and _may_listen(other):
            continue
        if other is session:
            session.leaving = True
        else:
            state.clients.end(other)


def _may_listen(session: Session) -> bool:
    if not session.subscribed:
        return True
    permissions = session.user.permissions
    selectors = (permissions.root, *permissions.selectors)
    return all(
        any(selector.allows_channel(name, is_pattern=kind is Kind.PATTERN) for selector in selectors)
        for kind in Kind
        for name in list(session.subscriptions[kind])
    )


@_acl("ACL|DELUSER", "username [username ...]", arity=-3, flags=_ADMIN, complexity="O(N), N users", tips=_ALL_NODES)
def acl_deluser(session: Session, *names: bytes) -> int:
    """Removes users and ends their connections; returns how many there were."""
    if DEFAULT in names:
        raise Error("ERR The 'default' user cannot be removed")
    deleted = sum(session.state.users.delete(name) for name in names)
    _end_those_not_allowed(session)
    return deleted


@_acl("ACL|DRYRUN", "username command [arg [arg ...]]", arity=-4, flags=_ADMIN, since="7.0.0")
def acl_dryrun(session: Session, name: bytes, *words: bytes) -> Reply:
    """Tells whether a user may run a command, without running it: OK, or why not."""
    user = session.state.users.find(name)
    if user is None:
        raise Error(f"ERR User '{errors.quote(name)}' not found")
    entry = find(COMMANDS, words[0])
    if entry is not None and entry.subcommands and len(words) > 1:
        entry = find(entry.subcommands, words[1])
    if entry is None:
        raise Error(f"ERR Command '{errors.quote(words[0])}' not found")
    if not entry.minimum <= len(words) <= entry.maximum:
        raise errors.wrong_arity(entry.name)
    if Flags.NO_AUTH in entry.flags:
        return OK
    for needs in all_needs(entry, words, session):
        if (denial := user.permissions.denial(needs)) is not None:
            return _why_not(user, denial)
    return OK


def _why_not(user: User, denial: Denial) -> bytes:
    what = {
        Reason.COMMAND: b"run the '%b' command",
        Reason.KEY: b"access the '%b' key",
        Reason.CHANNEL: b"access the '%b' channel",
        Reason.DATABASE: b"access database %b",
    }[denial.reason]
    return b"User %b has no permissions to " % user.name + what % denial.object


@_acl("ACL|GENPASS", "[bits]", arity=-2, flags=_FOR_ALL)
def acl_genpass(_session: Session, *words: bytes) -> bytes:
    """Returns a password made from so many random bits, 256 by default, in hexadecimal."""
    if len(words) > 1:
        raise errors.SubcommandUsageError
    bits = as_integer(words[0]) if words else 256
    if bits is None:
        raise Error(errors.NOT_AN_INTEGER)
    if not 0 < bits <= _MOST_BITS:
        raise Error(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to "
            f"{_MOST_BITS}"
        )
    digits = (bits + 3) // 4
    return secrets.token_hex((digits + 1) // 2)[:digits].encode("ascii")


@_acl("ACL|LOG", "[count | RESET]", arity=-2, flags=_ADMIN, complexity="O(N), N entries")
def acl_log(session: Session, *words: bytes) -> Reply:
    """Returns the newest denials, ten by default, or forgets all of them."""
    log, now = session.state.denials, session.state.clock()
    if len(words) > 1:
        raise errors.SubcommandUsageError
    if words and words[0].upper() == b"RESET":
        log.clear()
        return OK
    count = as_integer(words[0]) if words else 10
    if count is None:
        raise Error(errors.NOT_AN_INTEGER)
    return [
        {
            b"count": entry.count,
            b"reason": entry.denial.reason.name.lower().encode("ascii"),
            b"context": entry.context.encode("ascii"),
            b"object": entry.denial.object,
            b"username": entry.username,
            b"age-seconds": (now - entry.updated) / 1000,
            b"client-info": entry.client,
            b"entry-id": entry.number,
            b"timestamp-created": entry.created,
            b"timestamp-last-updated": entry.updated,
        }
        for entry in log.newest(count)
    ]


@_acl("ACL|SAVE", "", arity=2, flags=_ADMIN, complexity="O(N), N users", tips=_ALL_NODES)
def acl_save(session: Session) -> SimpleString:
    """Writes all users to the ACL file; OK once it is on disk."""
    return _with_file(session, lambda users, path: users.save(path))


@_acl("ACL|LOAD", "", arity=2, flags=_ADMIN, complexity="O(N), N users")
def acl_load(session: Session) -> SimpleString:
    """Replaces all users by those in the ACL file, or none if anything is wrong with it."""
    _with_file(session, lambda users, path: users.load(path, CATALOGUE))
    _end_those_not_allowed(session)
    return OK


def _with_file(session: Session, action: _FileAction) -> SimpleString:
    path = session.state.config.acl_file
    if not path:
        raise Error(_NO_FILE)
    try:
        action(session.state.users, path)
    except AccessFileError as error:
        raise Error(f"ERR {error}") from None
    return OK
