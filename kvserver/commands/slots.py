"""What of a command would break in a cluster. Dispatch asks, and only where the setting ``cluster-mode`` wants it.

Nothing here is answered with what a cluster says because of its state (MOVED, CLUSTERDOWN): one node has all slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from kvserver import errors
from kvserver.cluster import Cluster, Reason, slot_of
from kvserver.commands.arguments import as_integer
from kvserver.commands.needs import run_by
from kvserver.commands.registry import Command, Flags, key_and_channel_places
from kvserver.protocol.replies import Error
from kvserver.session import Session, Transaction


def check(cluster: Cluster, session: Session, entry: Command, words: Sequence[bytes]) -> Error | None:
    """Note what is wrong with a command in a cluster; the refusal, if this server stands for one. Nothing is run.

    Commands for other databases are noted only: the one database of a cluster has their handlers refuse them.
    """
    transaction = session.transaction
    if session.recovering or (transaction is not None and Flags.NO_MULTI in entry.flags):
        return None
    if entry.name == "exec":
        return _check_exec(cluster, session)
    _note_database(cluster, session, entry, words)
    keys = _keys(entry, words)
    slots = set(map(slot_of, keys))
    if len(slots) > 1:
        return _refusal(cluster, Reason.CROSS_SLOT, entry.name, [*_names(entry, words), *keys])
    if slots and transaction is not None:
        _remember(transaction, next(iter(slots)), entry.name, [*_names(entry, words), *keys])
    return None


def _refusal(cluster: Cluster, reason: Reason, command: str, example: Sequence[bytes]) -> Error | None:
    cluster.report.note(reason, command, example)
    return Error(errors.CROSS_SLOT) if cluster.emulated else None


def _keys(entry: Command, words: Sequence[bytes]) -> list[bytes]:
    """Keys and shard channels; none if the arguments make no sense, which the command itself will say."""
    if entry.name == "kv.once":
        inner = run_by(entry, words)
        return [] if inner is None else _keys(inner, words[3:])
    try:
        return [words[place] for place in key_and_channel_places(entry, words)]
    except Error:
        return []


def _names(entry: Command, words: Sequence[bytes]) -> list[bytes]:
    """A command's name as an example shows it, and that of one that it runs."""
    names = entry.name.upper().encode("ascii").split(b"|")
    return [*names, words[3]] if entry.name == "kv.once" else names


def _note_database(cluster: Cluster, session: Session, entry: Command, words: Sequence[bytes]) -> None:
    """Note a command that names another database than 0."""
    given: Sequence[bytes] = ()
    match entry.name:
        case "select":
            given = words[1:]
        case "move":
            given = words[2:]
        case "copy":
            given = [word for before, word in pairwise(words[3:]) if before.upper() == b"DB"]
        case "swapdb":
            cluster.report.note(Reason.COMMAND, entry.name, words)
    if any(0 < (as_integer(word) or 0) < session.state.config.databases for word in given):
        cluster.report.note(Reason.DATABASE, entry.name, words)


def _remember(transaction: Transaction, slot: int, command: str, example: list[bytes]) -> None:
    """Keep the first command of a transaction for each of its first two slots."""
    if transaction.slots is None:
        transaction.slots = {}
    if len(transaction.slots) < 2:
        transaction.slots.setdefault(slot, (command, example))


def _check_exec(cluster: Cluster, session: Session) -> Error | None:
    """A transaction stays in one slot; what it watches had better be there too, for no node watches another's keys."""
    transaction = session.transaction
    if transaction is None or transaction.aborted:
        return None
    used = transaction.slots or {}
    stray = next((key for _, key in session.watched if slot_of(key) not in used), None)
    if used and stray is not None:
        cluster.report.note(Reason.WATCH, "watch", [b"WATCH", stray, b"MULTI", *_examples(transaction), b"EXEC"])
    if len(used) < 2:
        return None
    (_, (command, _)) = list(used.items())[1]
    refusal = _refusal(cluster, Reason.TRANSACTION, command, [b"MULTI", *_examples(transaction), b"EXEC"])
    if refusal is not None:
        session.release_transaction()
    return refusal


def _examples(transaction: Transaction) -> list[bytes]:
    return [word for _, example in (transaction.slots or {}).values() for word in example]
