"""The connection itself: greeting, protocol version, database, leaving. Each handler works on the session alone."""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.access.rules import Denial, Reason
from kvserver.access.users import DEFAULT
from kvserver.commands.acl import deny
from kvserver.commands.arguments import checked_name, integer
from kvserver.commands.keys import database_index
from kvserver.commands.registry import Flags, Group, Runs, command
from kvserver.protocol.replies import OK, Error, Reply, SimpleString
from kvserver.session import Session
from kvserver.version import HELLO_SERVER, HELLO_VERSION

_connection = partial(command, group=Group.CONNECTION, runs=Runs.ON_SESSION)
_ALWAYS = Flags.NOSCRIPT | Flags.LOADING | Flags.STALE | Flags.FAST | Flags.NO_AUTH | Flags.ALLOW_BUSY
_PONG = SimpleString(b"PONG")


@_connection(
    "PING",
    "[message]",
    arity=-1,
    flags=Flags.FAST,
    tips=("request_policy:all_shards", "response_policy:all_succeeded"),
)
def ping(session: Session, *words: bytes) -> Reply:
    """Returns PONG, or the message."""
    if len(words) > 1:
        raise errors.wrong_arity("ping")
    if session.protocol == 2 and session.subscribed:  # among messages, all of which are arrays
        return [b"pong", words[0] if words else b""]
    return words[0] if words else _PONG


@_connection("ECHO", "message", arity=2, flags=Flags.LOADING | Flags.STALE | Flags.FAST)
def echo(_session: Session, message: bytes) -> bytes:
    """Returns the message."""
    return message


@_connection("QUIT", "", arity=-1, flags=_ALWAYS)
def quit_(session: Session, *_words: bytes) -> SimpleString:
    """Closes the connection once this reply is sent; commands behind it are not run."""
    session.leaving = True
    return OK


@_connection("RESET", "", arity=1, flags=_ALWAYS, since="6.2.0")
def reset(session: Session) -> SimpleString:
    """Takes the connection back to how it began: RESP2, database 0, no name."""
    session.reset()
    return SimpleString(b"RESET")


@_connection("SELECT", "index", arity=2, flags=Flags.LOADING | Flags.STALE | Flags.FAST | Flags.ALLOW_BUSY)
def select(session: Session, index: bytes) -> SimpleString:
    """Chooses the database for the commands that follow."""
    session.db = database_index(session.state.keyspace, index)
    return OK


@_connection("AUTH", "[username] password", arity=-2, flags=_ALWAYS)
def auth(session: Session, *words: bytes) -> SimpleString:
    """Authenticates the connection: as the user named, or as the default user."""
    if len(words) > 2:
        raise Error(errors.SYNTAX)
    if len(words) == 1:
        if session.state.users.default.permissions.any_password:
            raise Error(errors.NO_PASSWORD_SET)
        words = (DEFAULT, *words)
    _authenticate(session, b"AUTH", *words)
    return OK


def _authenticate(session: Session, command: bytes, name: bytes, password: bytes) -> None:
    """Make the connection that of a user. On failure nothing changes, and the reply does not tell what was wrong."""
    user = session.state.users.authenticate(name, password)
    if user is None:
        deny(session, Denial(Reason.AUTH, command), "toplevel", name)
        raise Error(errors.WRONG_PASSWORD)
    session.be(user)


@_connection(
    "HELLO",
    "[protover [AUTH username password] [SETNAME clientname]]",
    arity=-1,
    flags=_ALWAYS,
    since="6.0.0",
)
def hello(session: Session, *words: bytes) -> Reply:
    """Agrees on the protocol version, RESP2 or RESP3, and tells about the server."""
    protocol = session.protocol
    if words:
        protocol = integer(words[0], errors.PROTOCOL_NOT_AN_INTEGER)
        if protocol not in (2, 3):
            raise Error(errors.UNSUPPORTED_PROTOCOL)
    credentials, name = _hello_options(words[1:])
    if credentials is not None:
        _authenticate(session, b"HELLO", *credentials)
    if not session.authenticated and not session.state.users.is_open:
        raise Error(errors.NO_AUTH_HELLO)
    if name is not None:
        session.name = name
    session.speak(protocol)
    return {
        b"server": HELLO_SERVER.encode("ascii"),
        b"version": HELLO_VERSION.encode("ascii"),
        b"proto": protocol,
        b"id": session.id,
        b"mode": b"cluster" if session.state.stands_for_cluster else b"standalone",
        b"role": b"master",
        b"modules": [],
    }


def _hello_options(words: tuple[bytes, ...]) -> tuple[tuple[bytes, bytes] | None, bytes | None]:
    """The user name and password of AUTH, and the name of SETNAME, where given."""
    credentials: tuple[bytes, bytes] | None = None
    name: bytes | None = None
    position = 0
    while position < len(words):
        option, left = words[position].upper(), len(words) - position - 1
        if option == b"AUTH" and left >= 2:
            credentials = words[position + 1], words[position + 2]
            position += 3
        elif option == b"SETNAME" and left >= 1:
            name = checked_name(words[position + 1], errors.BAD_CLIENT_NAME)
            position += 2
        else:
            raise Error(f"ERR Syntax error in HELLO option '{errors.quote(words[position])}'")
    return credentials, name
