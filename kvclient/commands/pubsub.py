"""The commands of publishing, and of asking who listens.

Not here: listening itself, which takes a connection of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command

if TYPE_CHECKING:
    from kvclient.protocol import Name, Value


class PubSubCommands(CommandSet):
    """Commands that send messages to channels, and that count those who listen."""

    @command("PUBLISH", to.integer)
    def publish(self, channel: Name, message: Value) -> Args:
        """Send a message to everyone who listens to the channel; return to how many it went.

        Server command: PUBLISH.
        """
        return (b"PUBLISH", channel, message)

    @command("SPUBLISH", to.integer)
    def spublish(self, channel: Name, message: Value) -> Args:
        """Send a message to everyone who listens to the shard channel; return to how many it went.

        Server command: SPUBLISH.
        """
        return (b"SPUBLISH", channel, message)

    @command("PUBSUB|CHANNELS", to.blobs, safe=True)
    def pubsub_channels(self, pattern: Name | None = None) -> Args:
        """Return the channels that someone listens to, of those that match a glob pattern.

        Server command: PUBSUB CHANNELS.
        """
        return (b"PUBSUB", b"CHANNELS") if pattern is None else (b"PUBSUB", b"CHANNELS", pattern)

    @command("PUBSUB|NUMSUB", to.counts, safe=True)
    def pubsub_numsub(self, *channels: Name) -> Args:
        """Return how many listen to each of the channels by its name.

        Server command: PUBSUB NUMSUB.
        """
        return (b"PUBSUB", b"NUMSUB", *channels)

    @command("PUBSUB|NUMPAT", to.integer, safe=True)
    def pubsub_numpat(self) -> Args:
        """Return how many different patterns are listened to.

        Server command: PUBSUB NUMPAT.
        """
        return (b"PUBSUB", b"NUMPAT")

    @command("PUBSUB|SHARDCHANNELS", to.blobs, safe=True)
    def pubsub_shardchannels(self, pattern: Name | None = None) -> Args:
        """Return the shard channels that someone listens to, of those that match a glob pattern.

        Server command: PUBSUB SHARDCHANNELS.
        """
        return (b"PUBSUB", b"SHARDCHANNELS") if pattern is None else (b"PUBSUB", b"SHARDCHANNELS", pattern)

    @command("PUBSUB|SHARDNUMSUB", to.counts, safe=True)
    def pubsub_shardnumsub(self, *channels: Name) -> Args:
        """Return how many listen to each of the shard channels.

        Server command: PUBSUB SHARDNUMSUB.
        """
        return (b"PUBSUB", b"SHARDNUMSUB", *channels)

    @command("PUBSUB|HELP", to.text, safe=True)
    def pubsub_help(self) -> Args:
        """Return an explanation of PUBSUB's subcommands.

        Server command: PUBSUB HELP.
        """
        return (b"PUBSUB", b"HELP")
