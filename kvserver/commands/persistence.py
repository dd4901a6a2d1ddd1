"""Saving, waiting for the disk, and ending the server. Each handler works on the session.

There is one form of saving, the rewrite of the journal, so SAVE and BGSAVE are other names for it.
"""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.commands.arguments import INTEGER_MAX, integer
from kvserver.commands.registry import Flags, Group, Runs, command
from kvserver.protocol.replies import OK, Deferred, Error, Reply, SimpleString
from kvserver.session import Session

_server = partial(command, group=Group.SERVER, runs=Runs.ON_SESSION)
_LOADING = Flags.LOADING | Flags.STALE
_SAVING = Flags.ADMIN | Flags.NOSCRIPT
_NO_DIRECTORY = "ERR there is no data directory to save to: start the server with --data-dir DIR"
_SAVED = "O(N), N keys"


@_server(
    "LASTSAVE",
    "",
    arity=1,
    flags=_LOADING | Flags.FAST,
    categories=("admin", "dangerous"),
    tips=("nondeterministic_output",),
)
def lastsave(session: Session) -> int:
    """Returns the Unix time of the last rewrite; without one, when the server started."""
    state = session.state
    return (state.started_at if state.persistence is None else state.persistence.saved_at) // 1000


@_server("SAVE", "", arity=1, flags=_SAVING | Flags.NO_ASYNC_LOADING | Flags.NO_MULTI, complexity=_SAVED)
def save(session: Session) -> SimpleString:
    """Rewrites the journal, and answers when that is done. Other clients are served meanwhile."""
    persistence = session.state.persistence
    if persistence is None:
        raise Error(_NO_DIRECTORY)
    if persistence.rewriting_since is not None:
        raise Error("ERR Background save already in progress")
    if not persistence.rewrite():
        raise Error("ERR the data could not be saved; the server's log says why")
    return OK


@_server("BGSAVE", "[SCHEDULE | CANCEL]", arity=-1, flags=_SAVING | Flags.NO_ASYNC_LOADING, complexity="O(1)")
def bgsave(session: Session, *words: bytes) -> SimpleString:
    """Begins to rewrite the journal, and answers at once. One that has begun cannot be cancelled."""
    option = b"".join(words[:1]).upper()
    if len(words) > 1 or option not in (b"", b"SCHEDULE", b"CANCEL"):
        raise Error(errors.SYNTAX)
    if option == b"CANCEL":
        raise Error("ERR Background saving is currently not in progress or scheduled")
    _begin(session, "ERR Background save already in progress")
    return SimpleString(b"Background saving started")


@_server("BGREWRITEAOF", "", arity=1, flags=_SAVING | Flags.NO_ASYNC_LOADING, complexity="O(1)")
def bgrewriteaof(session: Session) -> SimpleString:
    """Begins to rewrite the journal: a new base file takes the place of all there are. Answers at once."""
    _begin(session, "ERR Background append only file rewriting already in progress")
    return SimpleString(b"Background append only file rewriting started")


def _begin(session: Session, busy: str) -> None:
    persistence = session.state.persistence
    if persistence is None:
        raise Error(_NO_DIRECTORY)
    if not persistence.rewrite_in_background():
        raise Error(busy)


@command(
    "WAITAOF",
    "numlocal numreplicas timeout",
    group=Group.GENERIC,
    runs=Runs.ON_SESSION,
    arity=4,
    flags=Flags.BLOCKING,
    since="7.2.0",
    categories=("connection", "!keyspace"),
    tips=("request_policy:all_shards", "response_policy:agg_min"),
)
def waitaof(session: Session, numlocal: bytes, numreplicas: bytes, timeout: bytes) -> Reply | Deferred:
    """Waits until what this connection has written is synced to disk, here (1) and by replicas (there are none).

    Returns how many did: here, and of the replicas. The time is in milliseconds; 0 waits as long as it takes.
    """
    local = integer(numlocal)
    if not 0 <= local <= 1:
        raise Error("ERR value is out of range, value must between 0 and 1")
    replicas = integer(numreplicas, errors.NOT_POSITIVE)
    if replicas < 0:
        raise Error(errors.NOT_POSITIVE)
    milliseconds = integer(timeout, "ERR timeout is not an integer or out of range")
    if milliseconds < 0:
        raise Error(errors.NEGATIVE_TIMEOUT)
    if milliseconds > INTEGER_MAX - session.state.clock():
        raise Error(errors.TIMEOUT_OUT_OF_RANGE)
    persistence = session.state.persistence
    if persistence is None:
        if local:
            raise Error("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
        safe = False
    else:
        journal = persistence.journal
        seconds = 0.0 if session.executing else milliseconds / 1000 or None
        safe = journal.wait_synced(journal.appended, seconds if local else 0.0)
    if replicas and not session.executing:
        session.wait(milliseconds / 1000 or None)
    return [int(safe), 0]


@_server(
    "SHUTDOWN",
    "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
    arity=-1,
    flags=Flags.ADMIN | Flags.NOSCRIPT | _LOADING | Flags.NO_MULTI | Flags.ALLOW_BUSY,
    complexity="O(N), N keys when saving, otherwise O(1)",
)
def shutdown(session: Session, *words: bytes) -> SimpleString:
    """Ends the server, after everything that was acknowledged is on disk. Answers only if that cannot be."""
    options = {word.upper() for word in words}
    known = {b"NOSAVE", b"SAVE", b"NOW", b"FORCE", b"ABORT"}
    if not options <= known or options >= {b"SAVE", b"NOSAVE"} or (b"ABORT" in options and len(options) > 1):
        raise Error(errors.SYNTAX)
    if b"ABORT" in options:
        raise Error("ERR No shutdown in progress.")
    state = session.state
    persistence = state.persistence
    if b"SAVE" in options and persistence is not None and not persistence.rewrite() and b"FORCE" not in options:
        raise Error("ERR Errors trying to SHUTDOWN. Check logs.")
    session.drop()
    state.shut_down()
    return OK
