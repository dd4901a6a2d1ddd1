"""The two servers of a migration: their clients, one for each database, and what tells them apart.

Not here: keys (reading.py, copying.py), and a cluster as one of them (clusters.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from kvclient.client import Client, tls_context
from kvclient.connection import Connection
from kvclient.errors import (
    AuthError,
    BusyError,
    CallTimeoutError,
    ClusterError,
    KVConnectionError,
    LoadingError,
    OutOfMemoryError,
    PersistenceError,
    ProtocolError,
    ReadOnlyError,
    ServerError,
)
from kvclient.serializers import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.url import Options

UNSURE: Final = (KVConnectionError, CallTimeoutError, ProtocolError)
"""After these nobody knows what was applied."""
PASSING: Final = (
    KVConnectionError, CallTimeoutError, LoadingError, BusyError, OutOfMemoryError, PersistenceError, ReadOnlyError,
    ClusterError,
)  # fmt: skip
"""These may pass: a server that is away, that starts, that is full, that is being replaced."""


class Side:
    """A server.

    Args:
        options: where it is; the database in them is of no account.
        timeout: seconds for a call.
        name: what CLIENT LIST is to show for our connections, which nobody else has.

    Attributes:
        skew: by how many ms its clocks may differ from each other.
        gained: nodes that may have keys which they had not when it was first asked which nodes there are. Whoever has
            looked at them empties it.
    """

    skew = 0

    def __init__(self, options: Options, timeout: float, name: str) -> None:
        # One connection for a database: what is written through it comes in order.
        self._options = dataclasses.replace(options, timeout=timeout, max_connections=1, name=name)
        self._clients: dict[int, Client] = {}
        self.gained: set[str] = set()

    @property
    def address(self) -> str:
        """The server's, for people."""
        return self._options.address

    @property
    def nodes(self) -> dict[str, Options]:
        """The servers whose keys are to be walked, by address, as far as is known."""
        return {self.address: self._options}

    def look_again(self) -> None:
        """Ask which nodes there are."""

    def client(self, db: int) -> Client:
        """The client of a database."""
        if db not in self._clients:
            self._clients[db] = Client(dataclasses.replace(self._options, db=db), None, PLAIN)
        return self._clients[db]

    def node(self, address: str, db: int) -> Client:
        """The client of a node's part of a database."""
        del address  # there is one
        return self.client(db)

    def listener(self, address: str) -> Connection:
        """A connection to a node that listens; not open yet."""
        options = self.nodes[address]
        return Connection(options, tls_context(options) if options.tls else None, listens=True)

    def keyspace(self) -> dict[int, int]:
        """How many keys there are, by database, for those that have any."""
        found: Counter[int] = Counter()
        for client in self._each():
            for name, text in client.info("keyspace").items():
                number, fields = name.removeprefix("db"), dict(part.split("=", 1) for part in str(text).split(","))
                if number.isdigit() and fields.get("keys", "").isdigit():
                    found[int(number)] += int(fields["keys"])
        return dict(found)

    def run(self) -> str | None:
        """What is different after each start of the server, or of a node; None if it does not tell."""
        try:
            found = [client.info("server").get("run_id") for client in self._each()]
        except ServerError as error:
            if isinstance(error, PASSING):
                raise
            return None
        return None if None in found else "+".join(sorted(map(str, found)))

    def _some(self) -> int:
        """A database that there is: one that is used already, if any is."""
        return next(iter(self._clients), 0)

    def _each(self) -> list[Client]:
        """A client for each node that there is now."""
        self.look_again()
        return [self.node(address, self._some()) for address in self.nodes]

    def has(self, db: int) -> bool:
        """Whether it has such a database.

        Raises:
            KVError: it cannot be asked.
        """
        try:
            self.client(db).check()
        except ServerError as error:
            if "out of range" not in error.message and "cluster mode" not in error.message:
                raise
            self._clients.pop(db).close()
            return False
        return True

    def can_restore(self) -> bool:
        """Whether it takes what DUMP gives."""
        try:
            return self.client(self._some()).command_info("restore") != [None]
        except AuthError:  # who may not ask may be allowed to do it nevertheless
            return True

    def fence(self, pause: Callable[[float], object]) -> None:
        """End our other connections there, so that nothing sent over a lost one is applied later than what follows.

        Raises:
            KVError: it cannot be asked, or does not end them in time.
        """
        for client in self._each():
            self._fence(client, pause)

    def _fence(self, client: Client, pause: Callable[[float], object]) -> None:
        deadline = time.monotonic() + self._options.timeout
        while True:
            own = client.client_id()
            others = [int(each["id"]) for each in client.client_list() if each.get("name") == self._options.name]
            if not (others := [number for number in others if number != own]):
                return
            for number in others:
                client.client_kill(id=number)
            if time.monotonic() > deadline:
                raise CallTimeoutError("the server does not end a connection that was lost")
            pause(0.02)

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            client.close()
