"""Brief commands that came together, in a pipeline, run under one hold of the keyspace lock.

What each of them would pay for beside its handler is paid for once: taking the lock, looking at the clock (they share
what it says, as those of a transaction do), accounting, and recording in the journal. Nobody is promised that somebody
else's command comes in between. A run is short: others wait no longer for it than for one of the slower commands.

Here is what is quick for the many. What is right for each, in every state that a connection may be in, is in
``dispatch.py``; whatever needs a closer look goes there.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvserver.commands.registry import DIRECT, Command
from kvserver.dispatch import account, failed, note_reply
from kvserver.protocol.replies import Reply
from kvserver.session import Session

_LONGEST_RUN = 64
"""Commands. They take a tenth of a millisecond together."""
_SHORT = 512
"""Bytes of a reply after which a run goes on. So it has no more of them than are sent at a time."""
_TIMED_TOGETHER = 1_000_000
"""Nanoseconds of the slow log's limit from which on the commands of a run need not be timed one by one."""


def execute_run(
    session: Session, words: list[bytes], following: Iterator[list[bytes]], replies: list[Reply]
) -> list[bytes] | None:
    """Run commands as long as one brief one follows the other, under one hold of the lock, which is not held before.

    Args:
        session: as for :func:`execute`.
        words: the first command.
        following: the others.
        replies: gets the replies to those that were run, in order; only the last one may be long.

    Returns:
        The next command, which has not been run; None if there is none. It is the first one if that is not brief, or
        if something is in force for which each command has to be looked at by itself.
    """
    state, keyspace = session.state, session.keyspace
    if _brief(words) is None or session.large_input:
        return words
    if state.slow_ns < _TIMED_TOGETHER or state.large_reply < 2 * _SHORT:  # each may have to be logged
        return words
    with keyspace.lock:
        if session.special or state.special or keyspace.observed:
            return words
        keyspace.moment = None
        return _run_several(session, words, following, replies)


def _brief(words: list[bytes]) -> Command | None:
    """The command, if it is a brief one and has as many words as it takes."""
    command = DIRECT.get(words[0])
    if command is None or not command.brief or not command.minimum <= len(words) <= command.maximum:
        return None
    return command


def _run_several(
    session: Session, words: list[bytes] | None, following: Iterator[list[bytes]], replies: list[Reply]
) -> list[bytes] | None:
    """As :func:`execute_run`, which has taken the lock."""
    database, steps = session.database, session.keyspace.steps
    command: Command | None = None
    alike: list[bytes] = []  # the first of those that have the same name and as many words: they are accounted together
    begun = 0  # where its reply is
    while words is not None and len(replies) < _LONGEST_RUN:
        if command is None or words[0] != alike[0] or len(words) != len(alike):
            found = _brief(words)
            if found is None:
                break
            if command is not None:
                account(session, command, alike, len(replies) - begun)
            command = session.last_command = found
            handler, alike, begun = command.handler, words, len(replies)
            is_stepwise = command.writes and len(words) != command.one_step
        try:
            if is_stepwise:
                with steps:
                    reply = handler(database, *words[1:])
            elif len(words) == 2:  # measurably quicker than with a slice
                reply = handler(database, words[1])
            else:
                reply = handler(database, *words[1:])
        except Exception as error:  # noqa: BLE001 - as in dispatch.py
            reply = failed(session, command, error)
        replies.append(reply)
        if reply.__class__ is bytes and len(reply) > _SHORT:
            note_reply(session, words, len(reply) + len(b"$%d\r\n\r\n" % len(reply)))
            words = next(following, None)
            break
        words = next(following, None)
    if command is not None:
        account(session, command, alike, len(replies) - begun)
    return words
