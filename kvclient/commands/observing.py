"""The commands that watch a server at work: its logs of slow and large commands, latency, memory.

Not here: MONITOR, which takes a connection of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command

if TYPE_CHECKING:
    from kvclient.protocol import Key

Kind: TypeAlias = Literal["slow", "large-request", "large-reply"]


class ObservingCommands(CommandSet):
    """Commands that tell what took long, and what takes up memory."""

    @command("SLOWLOG|GET", to.log_entries, safe=True)
    def slowlog_get(self, count: int = 10) -> Args:
        """Return the newest commands that took long, newest first; -1 for all.

        Server command: SLOWLOG GET.
        """
        return (b"SLOWLOG", b"GET", count)

    @command("SLOWLOG|LEN", to.integer, safe=True)
    def slowlog_len(self) -> Args:
        """Return how many commands that took long are kept.

        Server command: SLOWLOG LEN.
        """
        return (b"SLOWLOG", b"LEN")

    @command("SLOWLOG|RESET", to.done)
    def slowlog_reset(self) -> Args:
        """Forget the commands that took long.

        Server command: SLOWLOG RESET.
        """
        return (b"SLOWLOG", b"RESET")

    @command("SLOWLOG|HELP", to.text, safe=True)
    def slowlog_help(self) -> Args:
        """Return an explanation of SLOWLOG's subcommands.

        Server command: SLOWLOG HELP.
        """
        return (b"SLOWLOG", b"HELP")

    @command("COMMANDLOG|GET", to.log_entries, safe=True)
    def commandlog_get(self, kind: Kind = "slow", *, count: int = 10) -> Args:
        """Return the newest commands that took long or were large, newest first; -1 for all.

        Server command: COMMANDLOG GET.
        """
        return (b"COMMANDLOG", b"GET", count, kind)

    @command("COMMANDLOG|LEN", to.integer, safe=True)
    def commandlog_len(self, kind: Kind = "slow") -> Args:
        """Return how many commands of a kind are kept.

        Server command: COMMANDLOG LEN.
        """
        return (b"COMMANDLOG", b"LEN", kind)

    @command("COMMANDLOG|RESET", to.done)
    def commandlog_reset(self, kind: Kind = "slow") -> Args:
        """Forget the commands of a kind.

        Server command: COMMANDLOG RESET.
        """
        return (b"COMMANDLOG", b"RESET", kind)

    @command("COMMANDLOG|HELP", to.text, safe=True)
    def commandlog_help(self) -> Args:
        """Return an explanation of COMMANDLOG's subcommands.

        Server command: COMMANDLOG HELP.
        """
        return (b"COMMANDLOG", b"HELP")

    @command("HOTKEYS|START", to.done)
    def hotkeys_start(
        self,
        *,
        cpu: bool = True,
        net: bool = True,
        count: int | None = None,
        duration: int | None = None,
        sample: int | None = None,
    ) -> Args:
        """Begin to count which keys take most time, and most bytes.

        Server command: HOTKEYS START.

        Args:
            cpu: count time.
            net: count the bytes of requests and replies.
            count: how many keys to report; default 10.
            duration: seconds; default: until hotkeys_stop().
            sample: count one in so many commands; default 1, all.
        """
        metrics = ([b"CPU"] if cpu else []) + ([b"NET"] if net else [])
        limits = ((b"COUNT", count), (b"DURATION", duration), (b"SAMPLE", sample))
        options = [word for name, value in limits if value is not None for word in (name, value)]
        return (b"HOTKEYS", b"START", b"METRICS", len(metrics), *metrics, *options)

    @command("HOTKEYS|STOP", to.done_or_not)
    def hotkeys_stop(self) -> Args:
        """Stop counting keys; False if nothing was being counted.

        Server command: HOTKEYS STOP.
        """
        return (b"HOTKEYS", b"STOP")

    @command("HOTKEYS|GET", to.anything, safe=True)
    def hotkeys_get(self) -> Args:
        """Return what was counted of keys, as the server tells it; None if nothing was.

        Server command: HOTKEYS GET.
        """
        return (b"HOTKEYS", b"GET")

    @command("HOTKEYS|RESET", to.done)
    def hotkeys_reset(self) -> Args:
        """Forget what was counted of keys.

        Server command: HOTKEYS RESET.
        """
        return (b"HOTKEYS", b"RESET")

    @command("LATENCY|LATEST", to.array, safe=True)
    def latency_latest(self) -> Args:
        """Return for each event its name, latest spike and totals, as the server tells them.

        Server command: LATENCY LATEST.
        """
        return (b"LATENCY", b"LATEST")

    @command("LATENCY|HISTORY", to.array, safe=True)
    def latency_history(self, event: str) -> Args:
        """Return the spikes of an event: pairs of Unix time and milliseconds.

        Server command: LATENCY HISTORY.
        """
        return (b"LATENCY", b"HISTORY", event)

    @command("LATENCY|RESET", to.integer)
    def latency_reset(self, *events: str) -> Args:
        """Forget the spikes of some events, or of all; return of how many.

        Server command: LATENCY RESET.
        """
        return (b"LATENCY", b"RESET", *events)

    @command("LATENCY|DOCTOR", to.text, safe=True)
    def latency_doctor(self) -> Args:
        """Return a report on the spikes, for people.

        Server command: LATENCY DOCTOR.
        """
        return (b"LATENCY", b"DOCTOR")

    @command("LATENCY|HISTOGRAM", to.table, safe=True)
    def latency_histogram(self, *commands: str) -> Args:
        """Return how long calls of commands took, as the server tells it.

        Server command: LATENCY HISTOGRAM.
        """
        return (b"LATENCY", b"HISTOGRAM", *commands)

    @command("LATENCY|HELP", to.text, safe=True)
    def latency_help(self) -> Args:
        """Return an explanation of LATENCY's subcommands.

        Server command: LATENCY HELP.
        """
        return (b"LATENCY", b"HELP")

    @command("MEMORY|USAGE", to.integer_or_none, safe=True)
    def memory_usage(self, key: Key) -> Args:
        """Return the bytes that a key and its value take up, or None if there is no such key.

        Server command: MEMORY USAGE.
        """
        return (b"MEMORY", b"USAGE", key)

    @command("MEMORY|STATS", to.table, safe=True)
    def memory_stats(self) -> Args:
        """Return what the server takes up, as it tells it.

        Server command: MEMORY STATS.
        """
        return (b"MEMORY", b"STATS")

    @command("MEMORY|DOCTOR", to.text, safe=True)
    def memory_doctor(self) -> Args:
        """Return advice on memory, for people.

        Server command: MEMORY DOCTOR.
        """
        return (b"MEMORY", b"DOCTOR")

    @command("MEMORY|PURGE", to.done, safe=True)
    def memory_purge(self) -> Args:
        """Make the server give memory back to its system.

        Server command: MEMORY PURGE.
        """
        return (b"MEMORY", b"PURGE")

    @command("MEMORY|MALLOC-STATS", to.text, safe=True)
    def memory_malloc_stats(self) -> Args:
        """Return what the server's allocator says, for people.

        Server command: MEMORY MALLOC-STATS.
        """
        return (b"MEMORY", b"MALLOC-STATS")

    @command("MEMORY|HELP", to.text, safe=True)
    def memory_help(self) -> Args:
        """Return an explanation of MEMORY's subcommands.

        Server command: MEMORY HELP.
        """
        return (b"MEMORY", b"HELP")
