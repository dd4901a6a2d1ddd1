"""Commands written in Python, on a gateway: run here, on what their keys are at the backend.

The keys are watched and read, the function runs on them in a keyspace of its own, and what it has changed is written in
a transaction. If somebody has changed a key meanwhile, all of it is done again; so it is atomic, as it is on a server
with data, but the function may run several times.

Not here: what a function may be (extensions.py), the way to the backend (gateway.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from kvserver.commands.registry import Command, key_places
from kvserver.protocol.replies import Deferred, Error, Reply
from kvserver.store.memory import Database, Keyspace

if TYPE_CHECKING:
    from kvclient.client import Client
    from kvclient.transaction import WatchingTransaction

_NO_KEYS = "ERR {} names no keys: a gateway runs only what says which keys it uses"
_STRAY = "ERR {} changed a key that it does not name, which a gateway cannot do"


def run_here(client: Client, command: Command, words: Sequence[bytes], clock: Callable[[], int]) -> Reply:
    """Run a Python command on the backend's keys.

    Args:
        client: the way to the backend.
        command: of the function.
        words: the command with its arguments.
        clock: wall-clock milliseconds.

    Raises:
        Error: it fails, names no keys, or changes others than those.
        KVError: the backend cannot be asked, or refuses; its keys are in several slots.
    """
    keys = list(dict.fromkeys(words[place] for place in key_places(command, words)))
    if not keys:
        raise Error(_NO_KEYS.format(command.name.upper()))

    def work(transaction: WatchingTransaction) -> Reply | Error:
        database = Keyspace(1, clock).databases[0]
        for key in keys:
            value = transaction.now.get(key)
            deadline = transaction.now.pexpiretime(key)
            if value is not None:
                database.load(key, value, deadline if deadline > 0 else None)
        before = {key: _state(database, key) for key in keys}
        try:
            reply = _run(database, command, words)
        except Error as error:  # raised in here, it would cost the connection
            return error
        if set(database.live_keys()()) - set(keys):
            return Error(_STRAY.format(command.name.upper()))
        for key in keys:
            value, until = _state(database, key)
            if (value, until) == before[key]:
                continue
            if value is None:
                transaction.delete(key)
            else:
                transaction.execute("SET", key, value, *(() if until is None else ("PXAT", until)))
        if not len(transaction):
            transaction.exists(*keys)  # with nothing to run, nobody would say whether the keys were read together
        return reply

    outcome = client.transaction(work, watch=keys)
    if isinstance(outcome, Error):
        raise outcome
    return outcome


def _run(database: Database, command: Command, words: Sequence[bytes]) -> Reply:
    keyspace = database.keyspace
    with keyspace.lock, keyspace.steps:
        keyspace.moment = None
        reply = cast("Reply | Deferred", command.handler(database, *words[1:]))
    return reply() if callable(reply) else reply


def _state(database: Database, key: bytes) -> tuple[bytes | None, int | None]:
    """A key's value and deadline."""
    with database.keyspace.lock:
        return database.peek(key), database.deadline(key)
