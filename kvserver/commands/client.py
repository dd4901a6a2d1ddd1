"""CLIENT: who is connected, under what name, and ending connections. Each handler works on sessions; none blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from kvserver import errors
from kvserver.commands.arguments import INT32_MAX, INT32_MIN, as_integer, checked_name, integer
from kvserver.commands.containers import add_help
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


add_help("CLIENT", group=Group.CONNECTION, since="5.0.0")


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
    checked_name(value, f"ERR {attribute.decode('ascii')} cannot contain spaces, newlines or special characters.")
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
    now, queue = time.monotonic(), session.pushes
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
        "sub": len(session.subscriptions[0]),
        "psub": len(session.subscriptions[1]),
        "ssub": len(session.subscriptions[2]),
        "multi": -1 if session.transaction is None else len(session.transaction.queued),
        "watch": len(session.watched),
        "qbuf": session.pending_input,
        "qbuf-free": 0,
        "argv-mem": 0,
        "multi-mem": session.transaction.size if session.transaction else 0,
        "rbs": 0,
        "rbp": 0,
        "obl": 0,
        "oll": len(queue) if queue else 0,
        "omem": queue.size if queue else 0,
        "tot-mem": session.held + (queue.size if queue else 0),
        "events": "r",
        "cmd": session.last_command.name if session.last_command else "NULL",
        "user": session.user,
        "redir": -1 if session.tracking is None else session.tracking.redirect,
        "resp": session.protocol,
        "lib-name": session.library_name.decode("ascii"),
        "lib-ver": session.library_version.decode("ascii"),
        "tot-net-in": session.received,
        "tot-net-out": session.sent,
        "tot-cmds": session.commands,
    }
    return " ".join(f"{name}={value}" for name, value in fields.items()).encode("utf-8", "surrogateescape") + b"\n"


def flags_of(session: Session) -> str:
    """What CLIENT LIST shows, a letter for each that holds; ``N`` for none."""
    transaction, tracked = session.transaction, session.tracking
    letters = [
        letter
        for letter, holds in (
            ("O", session.monitoring),
            ("P", session.subscribed),
            ("x", transaction is not None),
            ("b", session.blocked),
            ("t", tracked is not None),
            ("R", tracked is not None and tracked.broken),
            ("B", tracked is not None and tracked.broadcast),
            ("d", session.dirty),
            ("c", session.leaving),
            ("U", session.address.startswith("/")),
            ("r", session.read_only),
            ("e", session.no_evict),
            ("T", session.no_touch),
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
        victims = [
            other for other in session.state.clients.sessions() if other.address == address and not other.dropped
        ]
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
        elif session.state.clients.end(victim):
            # Its thread does this too, in a moment; but whoever has the reply to KILL may ask who is subscribed.
            session.state.pubsub.leave(victim)
            killed += 1
    return killed


_Test = Callable[[Session], bool]


def _filter(session: Session, words: tuple[bytes, ...], *, skip_me: bool) -> list[Session]:
    """The connections that pass every filter.

    A filter is a name and a value; ``NOT-`` before the name turns it round. ID takes several values. Of a filter that
    is given twice the last one counts.
    """
    tests: dict[bytes, _Test] = {}
    position = 0
    while position < len(words):
        name = words[position].upper()
        if position + 1 >= len(words):
            raise Error(errors.SYNTAX)
        value = words[position + 1]
        position += 2
        if name in (b"ID", b"NOT-ID"):
            ids, position = _client_ids(words, position - 1)
            tests[name] = partial(_has_id, ids, wanted=name == b"ID")
        elif name == b"SKIPME":
            skip_me = _yes_or_no(value)
        else:
            tests[name] = _test(session, name, value)
    return [
        other
        for other in session.state.clients.sessions()
        if not (other.dropped or (skip_me and other is session)) and all(test(other) for test in tests.values())
    ]


def _client_ids(words: tuple[bytes, ...], position: int) -> tuple[set[int], int]:
    """The numbers from ``position`` on, and the place of the first word that is none."""
    start, ids = position, set()
    while position < len(words) and (number := as_integer(words[position])) is not None:
        if number < 1:
            raise Error("ERR client-id should be greater than 0")
        ids.add(number)
        position += 1
    if position == start:
        raise Error(errors.SYNTAX)
    return ids, position


def _has_id(ids: set[int], session: Session, *, wanted: bool) -> bool:
    return (session.id in ids) is wanted


def _yes_or_no(value: bytes) -> bool:
    if value.lower() not in (b"yes", b"no"):
        raise Error(errors.SYNTAX)
    return value.lower() == b"yes"


def _test(session: Session, name: bytes, value: bytes) -> _Test:
    """What one filter asks of a connection."""
    if name in _NUMBER_FILTERS:
        compare, number = _NUMBER_FILTERS[name], _positive(name, value)
        return lambda other: compare(other, number)
    plain = name.removeprefix(b"NOT-")
    if plain in _TEXT_FILTERS:
        attribute, text = _TEXT_FILTERS[plain], value.decode("utf-8", "surrogateescape")
        test: _Test = lambda other: attribute(other) == text != ""  # noqa: E731 - the branches are alternatives
    elif plain in _OTHER_FILTERS:
        test = _OTHER_FILTERS[plain](session, name.decode("ascii"), value)
    else:
        raise Error(errors.SYNTAX)
    return test if name == plain else lambda other: not test(other)


def _positive(name: bytes, value: bytes) -> int:
    shown = name.decode("ascii").lower()
    number = integer(value, f"ERR {shown} is not an integer or out of range")
    if number < 1:
        raise Error(f"ERR {shown} should be greater than 0")
    return number


def _flags_filter(_session: Session, name: str, value: bytes) -> _Test:
    letters = set(value.decode("latin-1"))
    if not letters <= _FLAG_LETTERS:
        which = "provided" if name == "FLAGS" else name
        raise Error(f"ERR Unknown flags found in the {which} filter: {errors.quote(value)}")
    return lambda other: letters <= set(flags_of(other))


def _capability_filter(_session: Session, name: str, value: bytes) -> _Test:
    if not set(value) <= set(b"r"):
        which = "provided" if name == "CAPA" else name
        raise Error(f"ERR Unknown capa found in the {which} filter: {errors.quote(value)}")
    return lambda _other: not value


def _type_filter(_session: Session, _name: str, value: bytes) -> _Test:
    if value.lower() not in _TYPES:
        raise Error(f"ERR Unknown client type '{errors.quote(value)}'")
    return lambda other: value.lower() == (b"pubsub" if other.subscribed else b"normal")


def _user_filter(session: Session, _name: str, value: bytes) -> _Test:
    user = session.state.users.find(value)
    if user is None:
        raise Error(f"ERR No such user '{errors.quote(value)}'")
    return lambda other: other.user is user


def _db_filter(session: Session, name: str, value: bytes) -> _Test:
    fault = f"ERR {name} is not an integer or out of range"
    number, last = integer(value, fault), len(session.keyspace.databases) - 1
    if not INT32_MIN <= number <= INT32_MAX:
        raise Error(fault)
    if not 0 <= number <= last:
        raise Error(f"ERR {name} number should be between 0 and {last}")
    return lambda other: other.db == number


_FLAG_LETTERS = set("ABEIMNOPRSTUbcdeirtux")
"""All that Valkey knows, so that its tools may ask for them; flags_of says which exist here."""
_TEXT_FILTERS: dict[bytes, Callable[[Session], str]] = {
    b"ADDR": lambda other: other.address,
    b"LADDR": lambda other: other.local_address,
    b"IP": lambda other: other.address.rpartition(":")[0].strip("[]"),
    b"NAME": lambda other: other.name.decode("ascii"),
    b"LIB-NAME": lambda other: other.library_name.decode("ascii"),
    b"LIB-VER": lambda other: other.library_version.decode("ascii"),
}
_OTHER_FILTERS: dict[bytes, Callable[[Session, str, bytes], _Test]] = {
    b"FLAGS": _flags_filter,
    b"CAPA": _capability_filter,
    b"TYPE": _type_filter,
    b"USER": _user_filter,
    b"DB": _db_filter,
}
_NUMBER_FILTERS: dict[bytes, Callable[[Session, int], bool]] = {
    b"MAXAGE": lambda other, seconds: time.monotonic() - other.created >= seconds,
    b"IDLE": lambda other, seconds: time.monotonic() - other.active >= seconds,
}
"""These cannot be turned round."""


@_subcommand("CLIENT|REPLY", "<ON | OFF | SKIP>", arity=3, flags=_ANYTIME | Flags.NO_MULTI, since="3.2.0")
def client_reply(session: Session, mode: bytes) -> Reply:
    """Turns replies to this connection on, off, or off for the next command."""
    match mode.upper():
        case b"ON":
            session.replies = Replies.ON
        case b"OFF":
            session.replies = Replies.OFF
        case b"SKIP":
            if session.replies is not Replies.OFF:
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


@_subcommand(
    "CLIENT|PAUSE",
    "timeout [WRITE | ALL]",
    arity=-3,
    flags=_ADMIN,
    since="3.0.0",
)
def client_pause(session: Session, timeout: bytes, *words: bytes) -> SimpleString:
    """Holds up commands for a time in milliseconds: all of them, or those that write."""
    if len(words) > 1:
        raise errors.SubcommandUsageError
    mode = words[0].upper() if words else b"ALL"
    if mode not in (b"ALL", b"WRITE"):
        raise Error("ERR CLIENT PAUSE mode must be WRITE or ALL")
    milliseconds = integer(timeout, "ERR timeout is not an integer or out of range")
    if milliseconds < 0:
        raise Error(errors.NEGATIVE_TIMEOUT)
    session.state.pause.begin(milliseconds / 1000, only_writes=mode == b"WRITE")
    session.state.mind()
    return OK


@_subcommand("CLIENT|UNPAUSE", "", arity=2, flags=_ADMIN, since="6.2.0", complexity="O(N), N connections that wait")
def client_unpause(session: Session) -> SimpleString:
    """Ends what CLIENT PAUSE began."""
    session.state.pause.end()
    session.state.mind()
    return OK
