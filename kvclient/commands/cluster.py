"""The commands that ask a node about its cluster, and kvserver's report of what would break in one.

Not here: choosing a node for a command, and changing a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command

if TYPE_CHECKING:
    from kvclient.protocol import Key


class ClusterCommands(CommandSet):
    """Commands about clusters."""

    @command("CLUSTER|SLOTS", to.array, safe=True)
    def cluster_slots(self) -> Args:
        """Return which nodes have which slots, as the server tells it.

        Server command: CLUSTER SLOTS.
        """
        return (b"CLUSTER", b"SLOTS")

    @command("CLUSTER|SHARDS", to.tables, safe=True)
    def cluster_shards(self) -> Args:
        """Return the shards with their slots and nodes, as the server tells them.

        Server command: CLUSTER SHARDS.
        """
        return (b"CLUSTER", b"SHARDS")

    @command("CLUSTER|NODES", to.text, safe=True)
    def cluster_nodes(self) -> Args:
        """Return the nodes, a line each.

        Server command: CLUSTER NODES.
        """
        return (b"CLUSTER", b"NODES")

    @command("CLUSTER|INFO", to.info, safe=True)
    def cluster_info(self) -> Args:
        """Return how the cluster is, by the names of the facts.

        Server command: CLUSTER INFO.
        """
        return (b"CLUSTER", b"INFO")

    @command("CLUSTER|KEYSLOT", to.integer, safe=True)
    def cluster_keyslot(self, key: Key) -> Args:
        """Return the slot of a key.

        Server command: CLUSTER KEYSLOT.
        """
        return (b"CLUSTER", b"KEYSLOT", key)

    @command("CLUSTER|COUNTKEYSINSLOT", to.integer, safe=True)
    def cluster_countkeysinslot(self, slot: int) -> Args:
        """Return how many keys of a slot this node has.

        Server command: CLUSTER COUNTKEYSINSLOT.
        """
        return (b"CLUSTER", b"COUNTKEYSINSLOT", slot)

    @command("CLUSTER|GETKEYSINSLOT", to.blobs, safe=True)
    def cluster_getkeysinslot(self, slot: int, count: int) -> Args:
        """Return some keys of a slot, at most so many.

        Server command: CLUSTER GETKEYSINSLOT.
        """
        return (b"CLUSTER", b"GETKEYSINSLOT", slot, count)

    @command("CLUSTER|MYID", to.text, safe=True)
    def cluster_myid(self) -> Args:
        """Return the node's ID.

        Server command: CLUSTER MYID.
        """
        return (b"CLUSTER", b"MYID")

    @command("CLUSTER|MYSHARDID", to.text, safe=True)
    def cluster_myshardid(self) -> Args:
        """Return the ID of the node's shard.

        Server command: CLUSTER MYSHARDID.
        """
        return (b"CLUSTER", b"MYSHARDID")

    @command("CLUSTER|LINKS", to.tables, safe=True)
    def cluster_links(self) -> Args:
        """Return the node's connections to other nodes, as the server tells them.

        Server command: CLUSTER LINKS.
        """
        return (b"CLUSTER", b"LINKS")

    @command("CLUSTER|HELP", to.text, safe=True)
    def cluster_help(self) -> Args:
        """Return an explanation of CLUSTER's subcommands.

        Server command: CLUSTER HELP.
        """
        return (b"CLUSTER", b"HELP")

    @command("KV.CLUSTER|REPORT", to.cluster_report, safe=True)
    def kv_cluster_report(self) -> Args:
        """Return the calls so far that would break in a cluster, with an example of each kind.

        Server command: KV.CLUSTER REPORT (kvserver), started with --cluster-mode report or emulated.
        """
        return (b"KV.CLUSTER", b"REPORT")

    @command("KV.CLUSTER|RESET", to.done)
    def kv_cluster_reset(self) -> Args:
        """Begin the report anew.

        Server command: KV.CLUSTER RESET (kvserver).
        """
        return (b"KV.CLUSTER", b"RESET")

    @command("KV.CLUSTER|HELP", to.text, safe=True)
    def kv_cluster_help(self) -> Args:
        """Return an explanation of KV.CLUSTER's subcommands.

        Server command: KV.CLUSTER HELP (kvserver).
        """
        return (b"KV.CLUSTER", b"HELP")
