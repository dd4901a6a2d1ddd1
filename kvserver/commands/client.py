"""CLIENT: who is connected, under what name, and ending connections. Each handler works on sessions; none blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from kvserver import errors
from kvserver.commands.arguments import as_integer, integer
from kvserver.commands.connection import checked_name
from kvserver.commands.registry import Flags, Group, Runs, command
from kvserver.protocol.replies import OK, Error, Reply, SimpleString, Verbatim
from kvserver.session import Replies, Session

_subcommand = partial(command, group=Group.CONNECTION, runs=Runs.ON_SESSION)
_ANYTIME = Flags.NOSCRIPT | Flags.LOADING | Flags.STALE | Flags.ALLOW_BUSY
_ADMIN = Flags.ADMIN | Flags.NOSCRIPT | Flags.LOADING | Flags.STALE
_ALL_NODES = ("request_policy:all_nodes", "response_policy:all_succeeded")
_TYPES = {b"normal", b"master", b"primary", b"slave", b"replica", b"pubsub"}


@_subcommand("CLIENT", "subcommand [argument ...]", arity=-2, since="2.4.0", categories=("!connection",))
def client(_session: Session) -> Reply:
    """Tells about connections and changes them, by its subcommands."""
    raise AssertionError("a container is never run")


@_subcommand("CLIENT|ID", "", arity=2, flags=_ANYTIME, since="5.0.0")
def client_id(session: Session) -> int:
    """Returns the connection's number, which no later connection gets again."""
    return session.id


@_subcommand("CLIENT|GETNAME", "", arity=2, flags=_ANYTIME, since="2.6.9")
def client_getname(session: Session) -> bytes | None:
    """Returns the connection's name, null if it has none."""
    return session.name or None


@_subcommand("CLIENT|SETNAME", "connection-name", arity=3, flags=_ANYTIME, since="2.6.9", tips=_ALL_NODES)
def client_setname(session: Session, name: bytes) -> SimpleString:
    """Names the connection, for CLIENT LIST; an empty name takes the name away."""
    session.name = checked_name(name, errors.BAD_CLIENT_NAME)
    return OK


@_subcommand(
    "CLIENT|SETINFO",
    "<LIB-NAME libname | LIB-VER libver>",
    arity=4,
    flags=_ANYTIME,
    since="7.2.0",
    tips=_ALL_NODES,
)
def client_setinfo(session: Session, attribute: bytes, value: bytes) -> SimpleString:
    """Notes the client library's name or version, for CLIENT LIST."""
    name = attribute.lower()
    if name not in (b"lib-name", b"lib-ver"):
        raise Error(f"ERR Unrecognized option '{errors.quote(attribute)}'")
    checked_name(value, f"ERR {name.decode('ascii')} cannot contain spaces, newlines or special characters.")
    if name == b"lib-name":
        session.library_name = value
    else:
        session.library_version = value
    return OK


@_subcommand(
    "CLIENT|INFO",
    "",
    arity=2,
    flags=Flags.NOSCRIPT | Flags.LOADING | Flags.STALE,
    since="6.2.0",
    tips=("nondeterministic_output",),
)
def client_info(session: Session) -> Verbatim:
    """Returns a line about this connection, as CLIENT LIST has it."""
    return Verbatim(describe(session))


@_subcommand(
    "CLIENT|LIST",
    "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]] [filter value [filter value ...]]",
    arity=-2,
    flags=_ADMIN,
    since="2.4.0",
    complexity="O(N), N connections",
    tips=("nondeterministic_output",),
)
def client_list(session: Session, *words: bytes) -> Verbatim:
    """Returns a line a connection, of all or of those that a filter picks."""
    chosen = _filter(session, words, skip_me=False)
    return Verbatim(b"".join(map(describe, chosen)))


def describe(session: Session) -> bytes:
    """One line of CLIENT LIST, in Valkey's fields."""
    now = time.monotonic()
    fields: dict[str, object] = {
        "id": session.id,
        "addr": session.address,
        "laddr": session.local_address,
        "fd": session.descriptor,
        "name": session.name.decode("ascii"),
        "age": int(now - session.created),
        "idle": int(now - session.active),
        "flags": flags_of(session),
        "capa": "",
        "db": session.db,
        "sub": 0,
        "psub": 0,
        "ssub": 0,
        "multi": -1,
        "watch": 0,
        "qbuf": session.pending_input,
        "qbuf-free": 0,
        "argv-mem": 0,
        "multi-mem": 0,
        "rbs": 0,
        "rbp": 0,
        "obl": 0,
        "oll": 0,
        "omem": 0,
        "tot-mem": session.pending_input,
        "events": "r",
        "cmd": session.last_command.name if session.last_command else "NULL",
        "user": session.user,
        "redir": -1,
        "resp": session.protocol,
        "lib-name": session.library_name.decode("ascii"),
        "lib-ver": session.library_version.decode("ascii"),
        "tot-net-in": session.received,
        "tot-net-out": session.sent,
        "tot-cmds": session.commands,
    }
    return " ".join(f"{name}={value}" for name, value in fields.items()).encode("utf-8", "surrogateescape") + b"\n"


def flags_of(session: Session) -> str:
    """What CLIENT LIST shows: ``c`` closing, ``e`` no eviction, ``T`` no touch, ``U`` Unix socket, else ``N``."""
    letters = [
        letter
        for letter, holds in (
            ("c", session.leaving),
            ("e", session.no_evict),
            ("T", session.no_touch),
            ("U", session.address.startswith("/")),
        )
        if holds
    ]
    return "".join(letters) or "N"


@_subcommand(
    "CLIENT|KILL",
    "<ip:port | filter value [filter value ...]>",
    arity=-3,
    flags=_ADMIN,
    since="2.4.0",
    complexity="O(N), N connections",
)
def client_kill(session: Session, *words: bytes) -> Reply:
    """Closes connections: the one from an address, or all that the filters pick; then returns how many."""
    if len(words) == 1:
        address = words[0].decode("utf-8", "surrogateescape")
        victims = [other for other in session.state.clients.sessions() if other.address == address]
        if not victims:
            raise Error(errors.NO_SUCH_CLIENT)
        _kill(session, victims)
        return OK
    victims = _filter(session, words, skip_me=True)
    return _kill(session, victims)


def _kill(session: Session, victims: Iterable[Session]) -> int:
    killed = 0
    for victim in victims:
        if victim is session:
            session.leaving = True  # this thread still has the reply to send
            killed += 1
        else:
            killed += session.state.clients.end(victim)
    return killed


_Test = Callable[[Session], bool]


def _filter(session: Session, words: tuple[bytes, ...], *, skip_me: bool) -> list[Session]:
    """The connections that pass every filter; a filter is a name and a value, ID takes several values."""
    tests: list[_Test] = []
    position = 0
    while position < len(words):
        name = words[position].upper()
        if position + 1 >= len(words):
            raise Error(errors.SYNTAX)
        value = words[position + 1]
        position += 2
        if name == b"ID":
            ids = {_client_id(value)}
            while position < len(words) and as_integer(words[position]) is not None:
                ids.add(_client_id(words[position]))
                position += 1
            tests.append(partial(_has_id, ids))
        elif name == b"SKIPME":
            skip_me = _yes_or_no(value)
        else:
            tests.append(_test(name, value))
    return [
        other
        for other in session.state.clients.sessions()
        if not (skip_me and other is session) and all(test(other) for test in tests)
    ]


def _has_id(ids: set[int], session: Session) -> bool:
    return session.id in ids


def _client_id(text: bytes) -> int:
    number = as_integer(text)
    if number is None or number < 1:
        raise Error("ERR client-id should be greater than 0")
    return number


def _yes_or_no(value: bytes) -> bool:
    if value.lower() not in (b"yes", b"no"):
        raise Error(errors.SYNTAX)
    return value.lower() == b"yes"


def _test(name: bytes, value: bytes) -> _Test:
    """What one filter asks of a connection."""
    if name in _TEXT_FILTERS:
        attribute, text = _TEXT_FILTERS[name], value.decode("utf-8", "surrogateescape")
        return lambda other: attribute(other) == text
    if name in _NUMBER_FILTERS:
        compare, number = _NUMBER_FILTERS[name], integer(value)
        return lambda other: compare(other, number)
    match name:
        case b"FLAGS":
            letters = set(value.decode("latin-1"))
            return lambda other: letters <= set(flags_of(other))
        case b"TYPE":
            if value.lower() not in _TYPES:
                raise Error(f"ERR Unknown client type '{errors.quote(value)}'")
            return lambda _other: value.lower() == b"normal"
        case b"USER":
            if value != b"default":
                raise Error(f"ERR No such user '{errors.quote(value)}'")
            return lambda _other: True
    raise Error(errors.SYNTAX)


_TEXT_FILTERS: dict[bytes, Callable[[Session], str]] = {
    b"ADDR": lambda other: other.address,
    b"LADDR": lambda other: other.local_address,
    b"IP": lambda other: other.address.rpartition(":")[0].strip("[]"),
    b"NAME": lambda other: other.name.decode("ascii"),
    b"LIB-NAME": lambda other: other.library_name.decode("ascii"),
    b"LIB-VER": lambda other: other.library_version.decode("ascii"),
    b"CAPA": lambda _other: "",
}
_NUMBER_FILTERS: dict[bytes, Callable[[Session, int], bool]] = {
    b"DB": lambda other, db: other.db == db,
    b"MAXAGE": lambda other, seconds: time.monotonic() - other.created >= seconds,
    b"IDLE": lambda other, seconds: time.monotonic() - other.active >= seconds,
}


@_subcommand("CLIENT|REPLY", "<ON | OFF | SKIP>", arity=3, flags=_ANYTIME | Flags.NO_MULTI, since="3.2.0")
def client_reply(session: Session, mode: bytes) -> Reply:
    """Turns replies to this connection on, off, or off for the next command."""
    match mode.upper():
        case b"ON":
            session.replies = Replies.ON
        case b"OFF":
            session.replies = Replies.OFF
        case b"SKIP":
            if session.replies is Replies.ON:
                session.replies = Replies.SKIP_NEXT
        case _:
            raise Error(errors.SYNTAX)
    return OK


def _on_or_off(value: bytes) -> bool:
    if value.lower() not in (b"on", b"off"):
        raise Error(errors.SYNTAX)
    return value.lower() == b"on"


@_subcommand("CLIENT|NO-EVICT", "<ON | OFF>", arity=3, flags=_ADMIN | Flags.ALLOW_BUSY, since="7.0.0")
def client_no_evict(session: Session, mode: bytes) -> SimpleString:
    """Exempts this connection from being closed to free memory."""
    session.no_evict = _on_or_off(mode)
    return OK


@_subcommand("CLIENT|NO-TOUCH", "<ON | OFF>", arity=3, flags=_ANYTIME, since="7.2.0")
def client_no_touch(session: Session, mode: bytes) -> SimpleString:
    """Makes this connection's commands not count as accesses to keys."""
    session.no_touch = _on_or_off(mode)
    return OK
