"""Brief commands that came together, in a pipeline, run under one hold of the keyspace lock.

What each of them would pay for beside its handler is paid for once: taking the lock, looking at what is in force and at
the time for expiry (they share it, as the commands of a transaction do), accounting, and recording in the journal.
Nobody is promised that somebody else's command comes in between. A run is short, so that others need not wait: after a
fraction of a millisecond it ends, also if one of its commands had to work on a large value.

Here is what is quick for the many. What is right for each, in every state that a connection may be in, is in
``dispatch.py``; whatever needs a closer look goes there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic_ns

from kvserver.commands.registry import DIRECT, Command
from kvserver.dispatch import failed, log_extraordinary
from kvserver.observe.usage import tally_of
from kvserver.protocol.replies import Error, Reply, SimpleString
from kvserver.session import Session

_MOST = 64
"""Commands of a run."""
_LONGEST = 200_000
"""Nanoseconds after which a run ends."""
_SHORT = 512
"""Bytes of a value that is a reply after which a run goes on; so the replies of one fit into what is sent at a time."""
_ALWAYS_SHORT = frozenset((int, type(None), SimpleString, Error))
"""Kinds of replies that are always short."""


@dataclass(slots=True)
class Run:
    """What came of a run.

    Attributes:
        next: the words of the first command that was not run; None if there is none.
        last: the words of the last one that was.
        replies: to those that were, in order; only the last one may be long.
    """

    next: list[bytes] | None
    last: list[bytes] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    defect: Exception | None = None  # what the last command has raised, which has no reply yet


def execute_run(session: Session, words: list[bytes], following: Iterator[list[bytes]]) -> Run | None:
    """Run commands as long as one brief one follows the other. The lock is not held before.

    Args:
        session: as for :func:`kvserver.dispatch.execute`.
        words: the first command.
        following: the others.

    Returns:
        What came of it; None if nothing was run, since the first one is not brief, or something is in force for which
        each command has to be looked at by itself.
    """
    state, keyspace = session.state, session.keyspace
    if session.special or state.special or _brief(words) is None:
        return None
    # A push goes behind the reply to what has caused it; and any command may have to be logged as a large one.
    if session.pushes is not None or session.large_input or state.large_reply < 2 * _SHORT:
        return None
    run = Run(words)
    is_run = False
    try:
        with keyspace.lock:
            if not (state.special or keyspace.observed):  # nor since
                keyspace.moment = None
                _run_several(session, run, following)
                is_run = True
    except Exception as error:
        if not is_run:
            raise
        # Whoever lets go of the lock records what was changed, and could not.
        run.replies[:] = [failed(session, DIRECT[run.last[0]], error)] * len(run.replies)
    if run.defect is not None:  # with the lock released, since this writes to the log
        run.replies.append(failed(session, DIRECT[run.last[0]], run.defect))
    return run if run.replies else None


def _brief(words: list[bytes]) -> Command | None:
    """The command, if it is a brief one and has as many words as it takes."""
    command = DIRECT.get(words[0])
    if command is None or not command.brief or not command.minimum <= len(words) <= command.maximum:
        return None
    return command


def _run_several(session: Session, run: Run, following: Iterator[list[bytes]]) -> None:
    """Run commands until one is not for a run. Lock held."""
    database, steps, replies = session.database, session.keyspace.steps, run.replies
    words, slow_ns = run.next, session.state.slow_ns
    end = monotonic_ns() + _LONGEST
    command: Command | None = None
    alike: list[bytes] = []  # the first of those that have the same name and as many words
    begun, since = 0, session.since  # where its reply is, and when the command before it had ended
    while words is not None and len(replies) < _MOST and not session.dropped:
        if command is None or words[0] != alike[0] or len(words) != len(alike):
            found = _brief(words)
            if found is None:
                break
            if command is not None:
                _account(session, command, len(replies) - begun, session.since - since)
            command = session.last_command = found
            handler, alike, begun, since = command.handler, words, len(replies), session.since
            is_stepwise = command.writes and len(words) != command.one_step
        run.last = words
        try:
            if is_stepwise:
                with steps:
                    reply = handler(database, *words[1:])
            elif len(words) == 2:  # measurably quicker than with a slice
                reply = handler(database, words[1])
            else:
                reply = handler(database, *words[1:])
        except Error as error:
            reply = failed(session, command, error)
        except Exception as defect:  # noqa: BLE001 - it must not end the connection, or the server
            run.defect = defect
            words = next(following, None)
            break
        replies.append(reply)
        now = monotonic_ns()
        if now - session.since >= slow_ns:
            log_extraordinary(session, command, words, now - session.since)
        session.since = now
        words = next(following, None)
        if now > end or (
            reply.__class__ not in _ALWAYS_SHORT and (reply.__class__ is not bytes or len(reply) > _SHORT)
        ):
            break
    run.next = words
    if command is not None:
        _account(session, command, len(replies) - begun + (run.defect is not None), session.since - since)


def _account(session: Session, command: Command, count: int, nanoseconds: int) -> None:
    """Note how long some calls of a command took together. They count as if each had taken the same time."""
    tally = tally_of(session.usage, command)
    tally[0] += nanoseconds
    tally[(nanoseconds // (1000 * count)).bit_length() + 1] += count
