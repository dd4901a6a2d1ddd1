"""A cluster as one side of a migration: keys are read and written where they are, and each primary is walked by itself.

Slots move, and replicas take the place of primaries. Whoever has got slots since it was last asked may have keys that
were not seen there, and is walked again. Not here: routing (kvclient/cluster).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kvclient.client import Client
from kvclient.cluster.client import ClusterClient
from kvclient.cluster.slots import Address, SlotMap, parse_slots
from kvclient.migration.sides import Side
from kvclient.serializers import PLAIN

if TYPE_CHECKING:
    from kvclient.url import Options


def side_of(options: Options, timeout: float, name: str) -> Side:
    """One side of a migration; see Side."""
    return ClusterSide(options, timeout, name) if options.nodes else Side(options, timeout, name)


class ClusterSide(Side):
    """A cluster."""

    skew = 1000

    def __init__(self, options: Options, timeout: float, name: str) -> None:
        super().__init__(options, timeout, name)
        self._slots = SlotMap(())
        self._nodes: dict[tuple[str, int], Client] = {}

    @property
    def nodes(self) -> dict[str, Options]:
        """The primaries, by address."""
        if not self._slots.primaries:
            self.look_again()
        return {str(address): self._options.at(*address) for address in self._slots.primaries}

    def look_again(self) -> None:
        """Ask who has which slot."""
        reply = self.client(self._some()).execute("CLUSTER", "SLOTS")
        before, self._slots = self._slots, parse_slots(reply, Address(*self._options.nodes[0]))
        if before.primaries:
            self.gained.update(map(str, self._slots.gained_since(before)))

    def client(self, db: int) -> Client:
        """The client of a database, which finds the node of each key."""
        if db not in self._clients:
            self._clients[db] = ClusterClient(dataclasses.replace(self._options, db=db), None, PLAIN)
        return self._clients[db]

    def node(self, address: str, db: int) -> Client:
        """The client of a node's part of a database."""
        if (address, db) not in self._nodes:
            options = dataclasses.replace(self.nodes[address], db=db)
            self._nodes[address, db] = Client(options, None, PLAIN)
        return self._nodes[address, db]

    def close(self) -> None:
        """Close the clients."""
        super().close()
        for client in self._nodes.values():
            client.close()
