"""EVAL, EVALSHA and SCRIPT, for the few scripts in ``known_scripts``. Any other is refused, and told why."""

from __future__ import annotations

import hashlib
from functools import partial

from kvserver import errors
from kvserver.access.rules import Needs
from kvserver.cluster import Reason
from kvserver.commands.acl import denied, deny
from kvserver.commands.arguments import integer
from kvserver.commands.containers import add_help
from kvserver.commands.known_scripts import KNOWN, RUNS, TOUCHES_ANY_KEY, Function, fingerprint
from kvserver.commands.needs import categories
from kvserver.commands.registry import COMMANDS, Flags, Group, Keys, Runs, command
from kvserver.protocol.replies import OK, Error, Reply, SimpleString
from kvserver.session import Session

_scripting = partial(command, group=Group.SCRIPTING, runs=Runs.ON_SESSION, since="2.6.0")
_runs = partial(
    _scripting,
    arity=-3,
    flags=Flags.NOSCRIPT | Flags.STALE | Flags.SKIP_MONITOR | Flags.NO_MANDATORY_KEYS,
    keys=Keys(3, 0, 1, "RW access update", count=2),
    complexity="O(N), N what the script does",
)
_manages = partial(_scripting, flags=Flags.NOSCRIPT | Flags.STALE)
_ALL_NODES = ("request_policy:all_nodes", "response_policy:all_succeeded")


_NEED_MEMORY = {
    function
    for function, names in RUNS.items()
    if any(Flags.DENYOOM in COMMANDS[name.encode("ascii")].flags for name in names.split())
}
"""The scripts that run a command which may need more memory."""


def _sha1(script: bytes) -> bytes:
    return hashlib.sha1(script).hexdigest().encode("ascii")  # noqa: S324 - the name that clients use


def _load(session: Session, script: bytes) -> Function:
    """Look a script up, and remember it under its SHA1."""
    sha1 = _sha1(script)
    function = session.state.scripts.get(sha1) or KNOWN.get(fingerprint(script))
    if function is None:
        raise Error(errors.NO_LUA)
    session.state.scripts[sha1] = function
    return function


def _run(session: Session, name: str, function: Function, numkeys: bytes, words: tuple[bytes, ...]) -> Reply:
    _check_allowed(session, function)
    count = integer(numkeys)
    if count > len(words):
        raise Error("ERR Number of keys can't be greater than number of args")
    if count < 0:
        raise Error("ERR Number of keys can't be negative")
    if function in TOUCHES_ANY_KEY and session.state.cluster is not None:
        session.state.cluster.report.note(Reason.UNDECLARED, name, [name.upper().encode("ascii"), *words[:count]])
    keyspace = session.keyspace
    with keyspace.lock:
        if not session.executing:
            keyspace.moment = None
        if not session.executing and function in _NEED_MEMORY and keyspace.eviction.is_full():
            raise Error(errors.MAXMEMORY)
        try:
            with keyspace.steps:
                return function(session.database, words[:count], words[count:])
        except IndexError:
            raise Error("ERR this script needs more keys or arguments") from None
        finally:
            if not session.executing:
                keyspace.eviction.settle()


def _check_allowed(session: Session, function: Function) -> None:
    """Whether the user may run all that the script runs. Its keys have been looked at as EVAL's.

    Raises:
        Error: not.
    """
    permissions = session.user.permissions
    if permissions.is_unlimited:
        return
    for name in RUNS[function].split():
        needs = Needs(
            name.encode("ascii"),
            frozenset(category.encode("ascii") for category in categories(COMMANDS[name.encode("ascii")])),
            every_key=function in TOUCHES_ANY_KEY,
        )
        if (denial := permissions.denial(needs)) is not None:
            deny(session, denial, "lua")
            raise denied(session, denial)


@_runs("EVAL", "script numkeys [key [key ...]] [arg [arg ...]]")
def eval_(session: Session, script: bytes, numkeys: bytes, *words: bytes) -> Reply:
    """Runs one of the scripts that this server knows, atomically."""
    return _run(session, "eval", _load(session, script), numkeys, words)


@_runs("EVALSHA", "sha1 numkeys [key [key ...]] [arg [arg ...]]")
def evalsha(session: Session, sha1: bytes, numkeys: bytes, *words: bytes) -> Reply:
    """Runs a script that EVAL or SCRIPT LOAD has brought, by its SHA1."""
    function = session.state.scripts.get(sha1.lower())
    if function is None:
        raise Error(errors.NO_SCRIPT)
    return _run(session, "evalsha", function, numkeys, words)


@_scripting("SCRIPT", "subcommand [argument ...]", arity=-2)
def script_(_session: Session) -> Reply:
    """Manages scripts, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("SCRIPT", group=Group.SCRIPTING, since="5.0.0")


@_manages("SCRIPT|LOAD", "script", arity=3, complexity="O(N), N the length of the script", tips=_ALL_NODES)
def script_load(session: Session, script: bytes) -> bytes:
    """Remembers one of the scripts that this server knows, for EVALSHA; returns its SHA1."""
    _load(session, script)
    return _sha1(script)


@_manages(
    "SCRIPT|EXISTS",
    "sha1 [sha1 ...]",
    arity=-3,
    complexity="O(N), N scripts",
    tips=("request_policy:all_shards", "response_policy:agg_logical_and"),
)
def script_exists(session: Session, *sha1s: bytes) -> Reply:
    """Returns for each SHA1 whether EVALSHA would find it: 1 or 0."""
    return [int(sha1.lower() in session.state.scripts) for sha1 in sha1s]


@_manages("SCRIPT|FLUSH", "[ASYNC | SYNC]", arity=-2, complexity="O(N), N scripts", tips=_ALL_NODES)
def script_flush(session: Session, *words: bytes) -> SimpleString:
    """Forgets the scripts that were loaded."""
    if len(words) > 1 or (words and words[0].upper() not in (b"ASYNC", b"SYNC")):
        raise Error("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
    session.state.scripts.clear()
    return OK
