"""KV.CLOCK: the server's time, stopped and moved by tests. Off unless ``clock-command`` allows it."""

from __future__ import annotations

from kvserver import errors
from kvserver.clock import MovableClock
from kvserver.commands.arguments import INTEGER_MAX, integer
from kvserver.commands.registry import Flags, Group, Runs, command
from kvserver.protocol.replies import Error
from kvserver.session import Session


@command(
    "KV.CLOCK",
    "[FREEZE | RESUME | ADVANCE milliseconds | SET unix-time-milliseconds]",
    group=Group.SERVER,
    runs=Runs.ON_SESSION,
    arity=-1,
    flags=Flags.ADMIN | Flags.NOSCRIPT | Flags.NO_MULTI | Flags.LOADING | Flags.STALE,
)
def clock(session: Session, *words: bytes) -> int:
    """Stops, moves or asks the clock that times to live go by; returns its time in milliseconds since 1970."""
    state = session.state
    movable = state.clock
    if not isinstance(movable, MovableClock) or (state.config.clock_command == "local" and not session.is_local):
        raise Error(errors.CLOCK_NOT_ALLOWED)
    keyspace = state.keyspace
    with keyspace.lock:  # so that a command sees one time from its beginning to its end
        match [words[0].upper() if words else b"", *words[1:]]:
            case [b""]:
                pass
            case [b"FREEZE"]:
                movable.freeze()
            case [b"RESUME"]:
                movable.resume()
            case [b"ADVANCE", amount]:
                movable.set(_within_range(movable() + integer(amount)))
            case [b"SET", moment]:
                movable.set(_within_range(integer(moment)))
            case _:
                raise Error(errors.SYNTAX)
        now = movable()
    keyspace.expiry.wake.set()
    return now


def _within_range(moment: int) -> int:
    """A time that deadlines may be added to.

    Raises:
        Error: it is before 1970, or beyond.
    """
    if not 0 <= moment <= INTEGER_MAX // 2:
        raise Error(errors.NOT_AN_INTEGER)
    return moment
