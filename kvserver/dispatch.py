"""From a decoded command to its reply: look-up, arity, the lock, the handler, errors. No socket, no bytes of RESP.

This is where the keyspace lock is taken, or found not to be needed (GET). A handler that works on data is called with
it held, for the whole command, and never takes it itself; one that works on the session is called without it. What a
handler returns as a function is finished after the lock is released. In a transaction commands are queued here; EXEC's
handler runs them.
"""

from __future__ import annotations

import sys
import traceback
from functools import partial
from time import monotonic_ns
from typing import cast

from kvserver import errors
from kvserver.access.rules import Denial, Reason
from kvserver.commands import COMMANDS
from kvserver.commands.acl import denied, deny
from kvserver.commands.needs import all_needs
from kvserver.commands.registry import DIRECT, Command, Flags, find, key_places
from kvserver.commands.slots import check
from kvserver.observe.log import get_logger
from kvserver.observe.stats import End
from kvserver.observe.usage import tally_of
from kvserver.protocol.encoder import encoding
from kvserver.protocol.replies import Deferred, Error, Reply, SimpleString
from kvserver.session import Forwarded, Session, Transaction
from kvserver.store.glance import BUSY, Busy, glance

# What a browser sends first or as a header line. Whoever speaks HTTP to this port was tricked into it (cross-protocol
# scripting), so nothing more of what it sends may be executed.
_HTTP = frozenset((b"post", b"put", b"host:"))

_QUEUED = SimpleString(b"QUEUED")
_QUEUED_COST, _WORD_COST = 250, 50
"""Bytes that a queued command takes, and each word of it, beside what the words hold."""
_AT_ONCE = {"exec", "discard", "multi", "watch", "quit", "reset"}
"""What a transaction does not queue."""
_WHILE_SUBSCRIBED = {
    "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe", "ping", "quit", "reset",
}  # fmt: skip


def execute(session: Session, words: list[bytes]) -> Reply:
    """Run one command and give its reply; an error is a reply too. Never raises."""
    try:
        command = DIRECT[words[0]]
    except KeyError:
        try:
            command = _look_up(session, words)
        except Error as error:
            return _rejected(session, error if session.authenticated else Error(errors.NO_AUTH))
    session.last_command = command
    if not command.minimum <= len(words) <= command.maximum:
        return _wrong_arity(session, command)
    if session.special or session.state.special:
        return _execute_in_mode(session, command, words)
    if command.glances and (value := _glance(session, words[1])) is not BUSY:
        _account(session, command, words)
        return value
    reply = _run(session, command, words)
    if callable(reply):
        reply = _finish(session, command, reply)
    _account(session, command, words)
    return reply


def _glance(session: Session, key: bytes) -> bytes | Busy | None:
    """The value of a key without the lock, if that will do, and counted as a hit or a miss."""
    value = glance(session.keyspace, session.db, key)
    if value is None:
        session.misses += 1
    elif value is not BUSY:
        session.hits += 1
    return value


def replay(session: Session, words: list[bytes]) -> Error | None:
    """Run a command of the journal; what is wrong with it, or None. Only what changes data may stand in a journal."""
    command = find(COMMANDS, words[0])
    if command is None or not (Flags.WRITE in command.flags or command.name == "select"):
        return Error(f"the command {errors.quote(words[0])} is not one of this server's: it cannot be loaded")
    reply = execute(session, words)
    return reply if isinstance(reply, Error) else None


def forbidden(session: Session, words: list[bytes]) -> Error | None:
    """What a session would be told whose user may not run a command; None if they may. Nothing is run or noted."""
    command = _look_up(session, words)
    if _must_authenticate(session, command):
        return Error(errors.NO_AUTH)
    denial = _denial(session, command, words)
    return None if denial is None else denied(session, denial)


def _account(session: Session, command: Command, words: list[bytes]) -> int:
    """Note how long the command took, in nanoseconds, and log it if that was long, or if it was large."""
    now = monotonic_ns()
    elapsed = now - session.since
    session.since = now
    tally = tally_of(session.usage, command)
    tally[0] += elapsed
    tally[(elapsed // 1000).bit_length() + 1] += 1
    if elapsed >= session.state.slow_ns or session.large_input:
        log_extraordinary(session, command, words, elapsed)
    return elapsed


def log_extraordinary(session: Session, command: Command, words: list[bytes], nanoseconds: int) -> None:
    """Keep a command that took long, or is large, in the logs that are for it."""
    state, config = session.state, session.state.config
    seconds, microseconds = state.clock() // 1000, nanoseconds // 1000
    if 0 <= config.slowlog_log_slower_than <= microseconds and Flags.SKIP_COMMANDLOG not in command.flags:
        state.slow_commands.add(config.slowlog_max_len, seconds, microseconds, words, session.address, session.name)
    if 0 < config.latency_monitor_threshold <= microseconds // 1000:
        state.latency.add("fast-command" if Flags.FAST in command.flags else "command", seconds, microseconds // 1000)
    if session.large_input and (size := _framed_size(words)) > state.large_request:
        state.large_requests.add(
            config.commandlog_large_request_max_len, seconds, size, words, session.address, session.name
        )


def _wrong_arity(session: Session, command: Command) -> Error:
    if _must_authenticate(session, command):
        return _rejected(session, Error(errors.NO_AUTH))
    error = errors.wrong_arity(command.name)
    if command.name == "exec":  # it was meant to end the transaction, so it does
        session.release_transaction()
        error = errors.exec_aborted_by(error)
    session.state.usage.reject(command)
    return _rejected(session, error)


def _run(session: Session, command: Command, words: list[bytes]) -> Reply | Deferred:
    """Call the handler, with the lock if it works on data. What is left to do is done by :func:`_finish`."""
    count = len(words)
    try:
        if not command.on_database:
            return cast("Reply | Deferred", command.handler(session, *words[command.words :]))
        keyspace = session.keyspace
        with keyspace.lock:
            if not session.executing:  # a transaction has one time for all of its commands
                keyspace.moment = None  # the clock is read when the command first needs the time
            if keyspace.observed:
                return _run_observed(session, command, words)
            database = keyspace.databases[session.db]
            if command.writes and count != command.one_step:
                with keyspace.steps:
                    return cast("Reply | Deferred", command.handler(database, *words[command.words :]))
            # Most commands have one argument or two; calling them so is measurably quicker than with a slice.
            if count == 2:
                return cast("Reply | Deferred", command.handler(database, words[1]))
            if count == 3 and command.words == 1:
                return cast("Reply | Deferred", command.handler(database, words[1], words[2]))
            return cast("Reply | Deferred", command.handler(database, *words[command.words :]))
    except Exception as error:  # noqa: BLE001 - a defect in one command must not end the connection, or the server
        if isinstance(error, errors.SubcommandUsageError):
            container = command.name.partition("|")[0].upper()
            error = errors.unknown_subcommand_or_arity(container, words[1])
        return failed(session, command, error)


def _run_observed(session: Session, command: Command, words: list[bytes]) -> Reply | Deferred:
    """Call a handler where uses of keys are noted, or memory is limited. Lock held.

    Room is made after the command, so that the data fits again before anybody else looks; within a transaction EXEC
    does that, at its end.

    Raises:
        Error: it needs more memory, and there is nothing to evict; or what the handler raises.
    """
    keyspace = session.keyspace
    keyspace.touching = not session.no_touch or command.name == "touch"
    if not session.executing and Flags.DENYOOM in command.flags and keyspace.eviction.is_full():
        raise Error(errors.MAXMEMORY)
    with keyspace.steps:
        reply = cast("Reply | Deferred", command.handler(session.database, *words[command.words :]))
    if not session.executing:
        keyspace.eviction.settle()
    return reply


def _finish(session: Session, command: Command, rest: Deferred) -> Reply:
    """Do what a handler has left for after the lock is released."""
    try:
        return rest()
    except Exception as error:  # noqa: BLE001 - as above
        return failed(session, command, error)


def _framed_size(words: list[bytes]) -> int:
    """How many bytes a command is as an array of bulk strings."""
    return sum(len(word) + len(str(len(word))) + 5 for word in words) + len(str(len(words))) + 3


def log_large_reply(session: Session, words: list[bytes], size: int) -> None:
    """Keep a command for COMMANDLOG whose reply has ``size`` bytes."""
    state = session.state
    state.large_replies.add(
        state.config.commandlog_large_reply_max_len, state.clock() // 1000, size, words, session.address, session.name
    )


def _execute_in_mode(session: Session, command: Command, words: list[bytes]) -> Reply:
    """Mind what is in force: a subscription, which allows little in RESP2; a pause; a transaction, which queues."""
    state = session.state
    if _must_authenticate(session, command):
        return _rejected(session, Error(errors.NO_AUTH))
    if (denial := _denial(session, command, words)) is not None:
        deny(session, denial, "toplevel" if session.transaction is None else "multi")
        return _rejected(session, denied(session, denial))
    if state.cluster is not None and (refusal := check(state.cluster, session, command, words)) is not None:
        return _rejected(session, refusal)
    if state.gateway is not None and (refusal := state.gateway.refusal(session, command)) is not None:
        return _rejected(session, refusal)
    if session.subscribed and session.protocol == 2 and command.name not in _WHILE_SUBSCRIBED:
        return _rejected(session, errors.only_subscriptions(command.name))
    if session.monitoring and command.on_database:
        return _rejected(session, Error(errors.MONITORING))
    if state.special:
        if (refusal := _refusal(session, command)) is not None:
            return _rejected(session, refusal)
        state.pause.wait(writes=_may_write(command))
        state.mind()
    if session.transaction is not None and command.name not in _AT_ONCE:
        return _queue(session, session.transaction, command, words)
    reply = _run_and_tell(session, command, words)
    if callable(reply):
        reply = _finish(session, command, reply)
    elapsed = _account(session, command, words)
    if command.on_database:
        _count_keys(session, command, words, reply, elapsed)
    return reply


def _queue(session: Session, transaction: Transaction, command: Command, words: list[bytes]) -> Reply:
    """Keep a command for EXEC."""
    if Flags.NO_MULTI in command.flags:
        return _rejected(session, errors.not_in_transaction(command.name))
    if Flags.DENYOOM in command.flags:
        if _is_full(session):
            return _rejected(session, Error(errors.MAXMEMORY))
        transaction.needs_memory = True
    transaction.size += _QUEUED_COST + sum(map(len, words)) + _WORD_COST * len(words)
    if transaction.size > session.state.limits.command:
        return _end_transaction(session)
    transaction.queued.append(partial(_run_queued, session, command, words))
    transaction.writes = transaction.writes or _writes(command)
    if (gateway := session.state.gateway) is not None:
        asked = (session, command, words)
        is_for_backend = gateway.runs(command)
        transaction.forwarded.append(
            Forwarded(command, words, partial(_no_longer, *asked), partial(_account, *asked))
            if is_for_backend
            else None
        )
    return _QUEUED


def _end_transaction(session: Session) -> Error:
    """A transaction is longer than a command may be. The connection ends, as it does for such a command."""
    session.release_transaction()
    session.leaving = True
    session.state.stats.count_end(End.TOO_LONG)
    return _rejected(session, Error(errors.TRANSACTION_TOO_LONG))


def _is_full(session: Session) -> bool:
    """Whether commands that need more memory are refused."""
    keyspace = session.keyspace
    if not keyspace.observed:
        return False
    with keyspace.lock:
        keyspace.moment = None
        return keyspace.eviction.is_full()


def _must_authenticate(session: Session, command: Command) -> bool:
    return not session.authenticated and Flags.NO_AUTH not in command.flags and not session.state.users.is_open


def _denial(session: Session, command: Command, words: list[bytes]) -> Denial | None:
    """What of a command the user may not do."""
    permissions = session.user.permissions
    if permissions.is_unlimited or Flags.NO_AUTH in command.flags or session.recovering:
        return None
    denials = (permissions.denial(needs) for needs in all_needs(command, words, session))
    return next((denial for denial in denials if denial is not None), None)


_NO_LONGER = {
    Reason.COMMAND: "no permission to execute the command or subcommand",
    Reason.KEY: "no permission to touch the specified keys",
    Reason.CHANNEL: "no permission to access one of the channels used as arguments to the command",
    Reason.DATABASE: "no permission to access database",
}


def _refusal(session: Session, command: Command) -> Error | None:
    """Why the state of the data forbids a command: it is being loaded, or the disk takes no more changes."""
    state = session.state
    if state.loading is not None and Flags.LOADING not in command.flags and not session.recovering:
        return Error(errors.LOADING)
    if state.refuses_writes is None:
        return None
    error = errors.cannot_write(state.refuses_writes)
    if command.name == "exec" and session.transaction is not None and session.transaction.writes:
        session.release_transaction()
        return errors.exec_aborted_by(error)
    return error if _writes(command) else None


def _writes(command: Command) -> bool:
    """Whether a command may change data; a script may."""
    return Flags.WRITE in command.flags or command.name in ("eval", "evalsha")


def _count_keys(session: Session, command: Command, words: list[bytes], reply: Reply | Deferred, elapsed: int) -> None:
    """Add a command to the collection of HOTKEYS, if one runs."""
    state = session.state
    found = state.hotkeys
    if found is None or not state.counts_hotkeys():
        return
    size = 0 if callable(reply) else len(encoding(session.protocol)[reply.__class__](reply))
    keys = [] if isinstance(reply, Error) else [words[place] for place in key_places(command, words)]
    found.add(keys, elapsed, _framed_size(words) + size)


def _may_write(command: Command) -> bool:
    """Whether CLIENT PAUSE WRITE holds a command up: one that writes, publishes, or belongs to a transaction."""
    return bool(command.flags & Flags.WRITE) or command.name in ("publish", "spublish", "exec")


def _run_and_tell(session: Session, command: Command, words: list[bytes]) -> Reply | Deferred:
    """Run a command, show it to those who MONITOR, and remember its keys for a cache that tracks them.

    What works on data is told with the lock held: in the order of the effects, and before any key can change again.
    """
    gateway = session.state.gateway
    if gateway is not None and gateway.runs(command):
        _tell(session, command, words)
        return gateway.run(session, command, words)
    if not command.on_database:
        reply = _run(session, command, words)
        _tell(session, command, words)
        return reply
    with session.keyspace.lock:
        reply = _run(session, command, words)
        _tell(session, command, words)
        return reply


def _tell(session: Session, command: Command, words: list[bytes]) -> None:
    monitors = session.state.monitors
    if monitors.sessions and Flags.ADMIN not in command.flags:
        monitors.tell(session, words)
    tracked = session.tracking
    if tracked is not None:
        if command.on_database and Flags.READONLY in command.flags and tracked.remembers:
            session.state.changes.remember(session, [words[place] for place in key_places(command, words)])
        if session.transaction is None and not session.executing and not command.name.startswith("client"):
            tracked.caching = None  # it was for one command, or for one transaction


def _no_longer(session: Session, command: Command, words: list[bytes]) -> Error | None:
    """Why a queued command is not allowed any more, if its user's permissions have changed since."""
    denial = _denial(session, command, words)
    if denial is None:
        return None
    deny(session, denial, "multi")
    return _rejected(session, errors.no_longer_allowed(_NO_LONGER[denial.reason]))


def _run_queued(session: Session, command: Command, words: list[bytes]) -> Reply | Deferred:
    """Run a command of a transaction; the lock is held. What it leaves to do is wrapped, as EXEC does it later."""
    session.last_command = command
    if (refusal := _no_longer(session, command, words)) is not None:
        return refusal
    reply = _run_and_tell(session, command, words)
    elapsed = _account(session, command, words)
    if command.on_database:
        _count_keys(session, command, words, reply, elapsed)
    return partial(_finish, session, command, reply) if callable(reply) else reply


def _look_up(session: Session, words: list[bytes]) -> Command:
    command = find(COMMANDS, words[0])
    if command is None:
        if words[0].lower() in _HTTP:
            get_logger().warning("connection.cross_protocol", client=session.id)
            session.drop()
        raise errors.unknown_command(words)
    if not command.subcommands or len(words) < 2:
        return command
    subcommand = find(command.subcommands, words[1])
    if subcommand is None:
        raise errors.unknown_subcommand(command.name, words[1])
    return subcommand


def _rejected(session: Session, error: Error) -> Error:
    """Refuse a command that was not run. In a transaction, EXEC refuses then too."""
    if session.transaction is not None:
        session.transaction.aborted = True
    session.state.stats.count_error(error.code)
    return error


def failed(session: Session, command: Command, error: Exception) -> Error:
    """The reply for what a handler raised."""
    if not isinstance(error, Error):
        if not isinstance(error, MemoryError):
            _report(command, error)
        error = Error(errors.OUT_OF_MEMORY if isinstance(error, MemoryError) else errors.INTERNAL)
    session.state.stats.count_error(error.code)
    session.state.usage.fail(command)
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
