"""Copies of all databases, for servers that begin with the same data.

Keys and values are immutable and shared; only the tables are copied, which takes a few tens of nanoseconds a key.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvserver.store.memory import Keyspace


@dataclass(frozen=True, slots=True)
class Contents:
    """One database's tables and what they weigh; never changed."""

    values: dict[bytes, bytes]
    deadlines: dict[bytes, int]
    size: int


def copied(keyspace: Keyspace) -> tuple[Contents, ...]:
    """Everything there is, at one moment. Lock not held."""
    with keyspace.lock:
        return tuple(
            Contents(database.values.copy(), database.deadlines.copy(), database.data_bytes)
            for database in keyspace.databases
        )


def filled(keyspace: Keyspace, contents: tuple[Contents, ...]) -> None:
    """Begin with these; nobody is told. The keyspace is empty. Lock not held.

    Raises:
        ValueError: there are more databases with keys than this keyspace has.
    """
    if any(each.values for each in contents[len(keyspace.databases) :]):
        raise ValueError("the snapshot has more databases than the server")
    with keyspace.lock:
        for database, each in zip(keyspace.databases, contents, strict=False):
            database.values = each.values.copy()
            database.deadlines = each.deadlines.copy()
            database.data_bytes += each.size
            keyspace.data_bytes += each.size
            for key, deadline in each.deadlines.items():
                keyspace.expiry.add(deadline, database, key)
            database.set_policy(keyspace.eviction.policy_for(database))
        keyspace.peak_bytes = max(keyspace.peak_bytes, keyspace.data_bytes)
