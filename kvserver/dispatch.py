"""From a decoded command to its reply: look-up, arity, the lock, the handler, errors. No socket, no bytes of RESP.

This is where the keyspace lock is taken. A handler that works on data is called with it held, for the whole command,
and never takes it itself; one that works on the session is called without it. What a handler returns as a function is
finished after the lock is released.
"""

from __future__ import annotations

import sys
import traceback
from typing import cast

from kvserver import errors
from kvserver.commands import COMMANDS
from kvserver.commands.registry import DIRECT, Command, find
from kvserver.observe.log import get_logger
from kvserver.protocol.replies import Deferred, Error, Reply
from kvserver.session import Session

# What a browser sends first or as a header line. Whoever speaks HTTP to this port was tricked into it (cross-protocol
# scripting), so nothing more of what it sends may be executed.
_HTTP = frozenset((b"post", b"put", b"host:"))


def execute(session: Session, words: list[bytes]) -> Reply:
    """Run one command and give its reply; an error is a reply too. Never raises."""
    try:
        command = DIRECT[words[0]]
    except KeyError:
        try:
            command = _look_up(session, words)
        except Error as error:
            return _failed(session, error)
    session.last_command = command
    count = len(words)
    if not command.minimum <= count <= command.maximum:
        return _failed(session, errors.wrong_arity(command.name))
    try:
        if not command.on_database:
            return cast("Reply", command.handler(session, *words[command.words :]))
        keyspace = session.keyspace
        with keyspace.lock:
            keyspace.moment = None  # the clock is read when the command first needs the time
            if keyspace.accessed is not None:
                keyspace.touching = not session.no_touch or command.name == "touch"
            database = keyspace.databases[session.db]
            reply: Reply | Deferred
            # Most commands have one argument or two; calling them so is measurably quicker than with a slice.
            if count == 2:
                reply = command.handler(database, words[1])
            elif count == 3 and command.words == 1:
                reply = command.handler(database, words[1], words[2])
            else:
                reply = command.handler(database, *words[command.words :])
        return reply() if callable(reply) else reply
    except Error as error:
        return _failed(session, error)
    except MemoryError:
        return _failed(session, Error(errors.OUT_OF_MEMORY))
    except Exception as defect:  # noqa: BLE001 - a defect in one command must not end the connection, or the server
        _report(command, defect)
        return _failed(session, Error(errors.INTERNAL))


def _look_up(session: Session, words: list[bytes]) -> Command:
    command = find(COMMANDS, words[0])
    if command is None:
        if words[0].lower() in _HTTP:
            session.drop()
        raise errors.unknown_command(words)
    if not command.subcommands or len(words) < 2:
        return command
    subcommand = find(command.subcommands, words[1])
    if subcommand is None:
        raise errors.unknown_subcommand(command.name, words[1])
    return subcommand


def _failed(session: Session, error: Error) -> Error:
    session.state.stats.count_error(error.code)
    return error


def _report(command: Command, defect: Exception) -> None:
    """Log where it happened. The exception's text stays out: it may hold a client's data."""
    frames = traceback.extract_tb(sys.exc_info()[2])[-3:]
    get_logger().error(
        "command.defect",
        command=command.name,
        exception=type(defect).__name__,
        at=[f"{frame.name}:{frame.lineno}" for frame in frames],
    )
