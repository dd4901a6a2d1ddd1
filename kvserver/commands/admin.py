"""The server as its operator sees it: INFO, TIME, ROLE, and what is left of commands that have no meaning here."""

from __future__ import annotations

import time
from functools import partial

from kvserver import errors
from kvserver.commands.arguments import INTEGER_MAX, integer
from kvserver.commands.containers import add_help
from kvserver.commands.lolwut import drawing
from kvserver.commands.registry import Flags, Group, Runs, command
from kvserver.observe.info import INFO_SECTIONS, NOT_BY_DEFAULT, report
from kvserver.protocol.replies import OK, Error, Reply, SimpleString, Verbatim
from kvserver.session import Session
from kvserver.version import __version__

_server = partial(command, group=Group.SERVER, runs=Runs.ON_SESSION)
_LOADING = Flags.LOADING | Flags.STALE
_UNFORESEEABLE = ("nondeterministic_output",)


@_server(
    "INFO",
    "[section [section ...]]",
    arity=-1,
    flags=_LOADING,
    complexity="O(N), N connections",
    categories=("dangerous",),
    tips=("nondeterministic_output", "request_policy:all_shards", "response_policy:special"),
)
def info(session: Session, *sections: bytes) -> Verbatim:
    """Returns facts and counters, in the field names that monitoring tools read."""
    wanted = {section.decode("latin-1").lower() for section in sections}
    if wanted & {"all", "everything"}:
        wanted = set(INFO_SECTIONS)
    elif not wanted or "default" in wanted:
        wanted |= set(INFO_SECTIONS) - NOT_BY_DEFAULT
    return Verbatim(report(session.state, wanted))


@_server("TIME", "", arity=1, flags=_LOADING | Flags.FAST, since="2.6.0", tips=_UNFORESEEABLE)
def time_(session: Session) -> Reply:
    """Returns the server's clock: Unix seconds, and microseconds within the second."""
    milliseconds = session.state.clock()
    microseconds = time.time_ns() // 1000 % 1000  # the injected clock is exact to the millisecond
    return [b"%d" % (milliseconds // 1000), b"%d" % (milliseconds % 1000 * 1000 + microseconds)]


@_server(
    "ROLE",
    "",
    arity=1,
    flags=Flags.NOSCRIPT | _LOADING | Flags.FAST,
    since="2.8.12",
    categories=("admin", "dangerous"),
)
def role(_session: Session) -> Reply:
    """Returns the replication role: always a master without replicas."""
    return [b"master", 0, []]


@command(
    "WAIT",
    "numreplicas timeout",
    group=Group.GENERIC,
    runs=Runs.ON_SESSION,
    arity=3,
    flags=Flags.BLOCKING,
    since="3.0.0",
    categories=("connection", "!keyspace"),
    tips=("request_policy:all_shards", "response_policy:agg_min"),
)
def wait(session: Session, numreplicas: bytes, timeout: bytes) -> int:
    """Waits until replicas have the writes, or the time in milliseconds is over; there are none, so returns 0."""
    wanted, milliseconds = (
        integer(numreplicas),
        integer(timeout, "ERR timeout is not an integer or out of range"),
    )
    if milliseconds < 0:
        raise Error(errors.NEGATIVE_TIMEOUT)
    if milliseconds > INTEGER_MAX - session.state.clock():
        raise Error(errors.TIMEOUT_OUT_OF_RANGE)
    if wanted > 0 and not session.executing:
        # Without a limit (0) this lasts until the connection or the server ends, as in Redis.
        session.wait(milliseconds / 1000 or None)
    return 0


@_server(
    "LOLWUT", "[VERSION version] [columns rows]", arity=-1, flags=Flags.READONLY | Flags.FAST, since="5.0.0",
    complexity="O(N), N characters",
)  # fmt: skip
def lolwut(_session: Session, *words: bytes) -> Verbatim:
    """Draws something, and tells the version."""
    return Verbatim(drawing(words, __version__))


# FUNCTION: there are no functions, so flushing them is done already. Test suites call it between tests.


@command("FUNCTION", "subcommand [argument ...]", group=Group.SCRIPTING, runs=Runs.ON_SESSION, arity=-2, since="7.0.0")
def function(_session: Session) -> Reply:
    """Stands in for functions, which this server has none of, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("FUNCTION", group=Group.SCRIPTING, since="7.0.0")


@command(
    "FUNCTION|FLUSH",
    "[ASYNC | SYNC]",
    group=Group.SCRIPTING,
    runs=Runs.ON_SESSION,
    arity=-2,
    flags=Flags.WRITE | Flags.NOSCRIPT,
    since="7.0.0",
    tips=("request_policy:all_shards", "response_policy:all_succeeded"),
)
def function_flush(_session: Session, *words: bytes) -> SimpleString:
    """Deletes all functions, of which there are none."""
    if len(words) > 1:
        raise errors.SubcommandUsageError
    if words and words[0].upper() not in (b"ASYNC", b"SYNC"):
        raise Error("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
    return OK


# DEBUG, for tests; off unless the settings allow it


@_server(
    "DEBUG",
    "<SLEEP seconds | SET-ACTIVE-EXPIRE flag | HELP>",
    arity=-2,
    flags=Flags.ADMIN | Flags.NOSCRIPT | _LOADING,
)
def debug(session: Session, subcommand: bytes, *words: bytes) -> Reply:
    """Helps tests: stops the server for a time, or stops removing expired keys. Off unless ``debug-command`` allows."""
    _check_debug_allowed(session)
    match subcommand.upper(), words:
        case b"SLEEP", (seconds,):
            _sleep(session, seconds)
        case b"SET-ACTIVE-EXPIRE", (flag,):
            active = session.state.active_expiry
            active.clear() if flag == b"0" else active.set()
            session.keyspace.expiry.wake.set()
        case b"HELP", ():
            return [SimpleString(line) for line in _DEBUG_HELP]
        case _:
            raise errors.unknown_subcommand_or_arity("DEBUG", subcommand)
    return OK


_DEBUG_HELP = (
    b"DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    b"SLEEP seconds",
    b"    Keeps every command that needs data waiting for so long.",
    b"SET-ACTIVE-EXPIRE flag",
    b"    With 0, expired keys are removed only when they are asked for; with 1, by themselves again.",
    b"HELP",
    b"    Explains the subcommands.",
)


def _check_debug_allowed(session: Session) -> None:
    allowed = session.state.config.debug_command
    if allowed == "no" or (allowed == "local" and not session.is_local):
        raise Error(
            'ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from '
            "a local connection, otherwise you need to set this option in the configuration file, and then restart the "
            "server."
        )


def _sleep(session: Session, seconds: bytes) -> None:
    """Hold the lock, which is the point: everyone who needs the data waits. Ends early when the server stops."""
    try:
        duration = float(seconds)
    except ValueError:
        duration = 0.0
    with session.state.keyspace.lock:
        session.state.stopping.wait(min(max(0.0, duration), 3600.0))
