"""Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH. Between MULTI and EXEC dispatch queues what arrives.

EXEC holds the keyspace lock while the queued commands run, so for everybody else they are one command. A client that
thinks between MULTI and EXEC holds nothing.
"""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.commands.registry import Flags, Group, Keys, Runs, command
from kvserver.protocol.replies import NULL_ARRAY, OK, Deferred, Error, Reply, SimpleString
from kvserver.session import Session, Transaction

_transaction = partial(command, group=Group.TRANSACTIONS, runs=Runs.ON_SESSION)
_ANYTIME = Flags.NOSCRIPT | Flags.LOADING | Flags.STALE | Flags.FAST | Flags.ALLOW_BUSY


@_transaction("MULTI", "", arity=1, flags=_ANYTIME | Flags.NO_MULTI, since="1.2.0")
def multi(session: Session) -> SimpleString:
    """Begins a transaction: the commands that follow are queued, until EXEC runs them as one."""
    if session.transaction is not None:
        raise Error(errors.MULTI_NESTED)
    session.transaction = Transaction()
    session.mind()
    return OK


@_transaction(
    "EXEC",
    "",
    arity=1,
    flags=Flags.NOSCRIPT | Flags.LOADING | Flags.STALE | Flags.SKIP_COMMANDLOG,
    since="1.2.0",
    complexity="O(N), N queued commands, and what each of them costs",
)
def exec_(session: Session) -> Reply:
    """Runs the queued commands as one and returns their replies; null if something that was watched has changed."""
    transaction = _end(session, errors.EXEC_WITHOUT_MULTI)
    if session.state.gateway is not None:
        return session.state.gateway.execute(session, transaction)
    keyspace, changes = session.keyspace, session.state.changes
    with keyspace.lock:
        keyspace.moment = None
        is_broken = changes.is_broken(session)
        changes.unwatch(session)
        if transaction.aborted:
            raise Error(errors.EXEC_ABORTED)
        if is_broken:
            return NULL_ARRAY
        if transaction.needs_memory and keyspace.eviction.is_full():
            raise errors.exec_aborted_by(Error(errors.MAXMEMORY))
        session.executing = True
        try:
            with keyspace.steps:
                results = [run() for run in transaction.queued]
        finally:
            session.executing = False
            keyspace.eviction.settle()
    return [_finish(result) for result in results]


def _finish(result: Reply | Deferred) -> Reply:
    return result() if callable(result) else result


def _end(session: Session, fault: str) -> Transaction:
    """Take the transaction off the session.

    Raises:
        Error: ``fault``, when there is none.
    """
    transaction = session.transaction
    if transaction is None:
        raise Error(fault)
    session.transaction = None
    session.mind()
    return transaction


@_transaction("DISCARD", "", arity=1, flags=_ANYTIME, since="2.0.0", complexity="O(N), N queued commands")
def discard(session: Session) -> SimpleString:
    """Ends a transaction without running it, and forgets what is watched."""
    _end(session, errors.DISCARD_WITHOUT_MULTI)
    session.release_transaction()
    return OK


@_transaction(
    "WATCH",
    "key [key ...]",
    arity=-2,
    flags=_ANYTIME | Flags.NO_MULTI,
    keys=Keys(1, -1, 1, "RO"),
    since="2.2.0",
    complexity="O(N), N keys",
)
def watch(session: Session, *keys: bytes) -> SimpleString:
    """Makes the next EXEC of this connection do nothing if one of the keys has changed until then."""
    if session.transaction is not None:
        raise Error(errors.WATCH_IN_MULTI)
    if session.state.gateway is not None:
        session.state.gateway.watch(session, keys)
        return OK
    with session.keyspace.lock:
        session.keyspace.moment = None
        for key in keys:
            session.state.changes.watch(session, session.database, key)
    return OK


@_transaction("UNWATCH", "", arity=1, flags=_ANYTIME, since="2.2.0")
def unwatch(session: Session) -> SimpleString:
    """Forgets what is watched."""
    if session.state.gateway is not None:
        session.state.gateway.forget(session)
    with session.keyspace.lock:
        session.state.changes.unwatch(session)
    return OK
