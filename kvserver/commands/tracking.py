"""Client-side caching as clients ask for it: CLIENT TRACKING, CACHING, TRACKINGINFO, GETREDIR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from kvserver import errors
from kvserver.commands.arguments import integer
from kvserver.commands.registry import Flags, Group, Runs, command
from kvserver.protocol.replies import OK, Error, Reply, Set, SimpleString
from kvserver.session import Session
from kvserver.tracking import Tracked

_subcommand = partial(command, group=Group.CONNECTION, runs=Runs.ON_SESSION)
_ANYTIME = Flags.NOSCRIPT | Flags.LOADING | Flags.STALE


@_subcommand(
    "CLIENT|TRACKING",
    "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
    arity=-3,
    flags=_ANYTIME,
    since="6.0.0",
    complexity="O(N), N prefixes",
)
def client_tracking(session: Session, mode: bytes, *words: bytes) -> SimpleString:
    """Tells this connection when keys change that it has read, or that begin with a prefix; or stops that."""
    wanted = _parse(session, words)
    if mode.upper() == b"ON":
        session.state.open_pushes(session)
        with session.keyspace.lock:
            _check(session.tracking, wanted)
            _check_prefixes(session.tracking, wanted)
            if wanted.broadcast:
                before = session.tracking.prefixes if session.tracking is not None else []
                wanted.prefixes = before + (wanted.prefixes or ([] if before else [b""]))
            session.state.changes.track(session, wanted)
    elif mode.upper() == b"OFF":
        with session.keyspace.lock:
            session.state.changes.untrack(session)
    else:
        raise Error(errors.SYNTAX)
    session.mind()
    return OK


def _parse(session: Session, words: Sequence[bytes]) -> Tracked:
    wanted = Tracked()
    rest = iter(words)
    for word in rest:
        match word.upper():
            case b"REDIRECT":
                wanted.redirect = _redirection(session, wanted, rest)
            case b"PREFIX" if (prefix := next(rest, None)) is not None:
                wanted.prefixes.append(prefix)
            case b"BCAST":
                wanted.broadcast = True
            case b"OPTIN":
                wanted.opt_in = True
            case b"OPTOUT":
                wanted.opt_out = True
            case b"NOLOOP":
                wanted.no_loop = True
            case _:
                raise Error(errors.SYNTAX)
    return wanted


def _redirection(session: Session, wanted: Tracked, rest: Iterator[bytes]) -> int:
    """The number of a connection that exists now."""
    text = next(rest, None)
    if text is None:
        raise Error(errors.SYNTAX)
    if wanted.redirect:
        raise Error("ERR A client can only redirect to a single other client")
    number = integer(text)
    if session.state.clients.find(number) is None:
        raise Error("ERR The client ID you want redirect to does not exist")
    return number


def _check(current: Tracked | None, wanted: Tracked) -> None:
    """Refuse what does not go together, or not with what is on already."""
    anew = "before disabling tracking for this client, and then re-enabling it with a different mode."
    if wanted.prefixes and not wanted.broadcast:
        raise Error("ERR PREFIX option requires BCAST mode to be enabled")
    if current is not None and current.broadcast != wanted.broadcast:
        raise Error(f"ERR You can't switch BCAST mode on/off {anew}")
    if wanted.broadcast and (wanted.opt_in or wanted.opt_out):
        raise Error("ERR OPTIN and OPTOUT are not compatible with BCAST")
    if wanted.opt_in and wanted.opt_out:
        raise Error("ERR You can't specify both OPTIN mode and OPTOUT mode")
    if current is not None and ((wanted.opt_in and current.opt_out) or (wanted.opt_out and current.opt_in)):
        raise Error(f"ERR You can't switch OPTIN/OPTOUT mode {anew}")


def _check_prefixes(current: Tracked | None, wanted: Tracked) -> None:
    existing = current.prefixes if current is not None else []
    for place, prefix in enumerate(wanted.prefixes):
        provided = wanted.prefixes[place + 1 :]
        for known, others in (("an existing prefix", existing), ("another provided prefix", provided)):
            for other in others:
                if prefix.startswith(other) or other.startswith(prefix):
                    raise Error(
                        f"ERR Prefix '{errors.quote(prefix)}' overlaps with {known} '{errors.quote(other)}'. "
                        "Prefixes for a single client must not overlap."
                    )


@_subcommand("CLIENT|CACHING", "<YES | NO>", arity=3, flags=_ANYTIME | Flags.ALLOW_BUSY, since="6.0.0")
def client_caching(session: Session, mode: bytes) -> SimpleString:
    """Has the next command's keys remembered, or not, where tracking is by choice."""
    tracked = session.tracking
    if tracked is None:
        raise Error(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode "
            "enabled"
        )
    match mode.upper():
        case b"YES":
            if not tracked.opt_in:
                raise Error("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
        case b"NO":
            if not tracked.opt_out:
                raise Error("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
        case _:
            raise Error(errors.SYNTAX)
    tracked.caching = mode.upper() == b"YES"
    return OK


@_subcommand("CLIENT|TRACKINGINFO", "", arity=2, flags=_ANYTIME, since="6.2.0")
def client_trackinginfo(session: Session) -> Reply:
    """Returns how this connection tracks: its modes, where it redirects to, its prefixes."""
    tracked = session.tracking
    if tracked is None:
        return {b"flags": Set([b"off"]), b"redirect": -1, b"prefixes": []}
    told = (
        (b"on", True),
        (b"bcast", tracked.broadcast),
        (b"optin", tracked.opt_in),
        (b"caching-yes", tracked.opt_in and tracked.caching is True),
        (b"optout", tracked.opt_out),
        (b"caching-no", tracked.opt_out and tracked.caching is False),
        (b"noloop", tracked.no_loop),
        (b"broken_redirect", tracked.broken),
    )
    prefixes: list[Reply] = []
    prefixes += sorted(tracked.prefixes)
    return {
        b"flags": Set(name for name, holds in told if holds),
        b"redirect": tracked.redirect,
        b"prefixes": prefixes,
    }


@_subcommand("CLIENT|GETREDIR", "", arity=2, flags=_ANYTIME | Flags.ALLOW_BUSY, since="6.0.0")
def client_getredir(session: Session) -> int:
    """Returns the connection that invalidations go to: 0 for this one, -1 when it does not track."""
    return -1 if session.tracking is None else session.tracking.redirect
