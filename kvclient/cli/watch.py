"""`kv watch`: changes of keys, or messages of channels, as they come, a line each."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from kvclient.cli.session import Problem
from kvclient.client import Client, client_of
from kvclient.errors import KVError
from kvclient.serializers import PLAIN
from kvclient.text import harmless, quoted

if TYPE_CHECKING:
    import argparse

    from kvclient.cli.arguments import Given

_NEEDED = "KA"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The tool's options."""
    parser.add_argument("pattern", metavar="PATTERN", help="a glob pattern of keys, as in 'user:*'")
    parser.add_argument("--channel", action="store_true", help="it is a pattern of channels, whose messages to show")
    parser.add_argument(
        "--enable", action="store_true", help="have the server notify of changes (CONFIG SET notify-keyspace-events)"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after so many")
    parser.epilog = "Ctrl-C ends it. What happens while the connection is lost is not shown; that it was, is told."


def run(given: Given) -> int:
    """Show them until it is interrupted; returns the exit status."""
    settings = given.settings
    if given.options.nodes and not settings.channel:
        raise Problem("each node of a cluster tells of its own keys only: give the URL of a node, or --channel")
    with client_of(given.options, PLAIN) as client:
        client.check()
        if settings.channel:
            pattern, prefix = settings.pattern, 0
        else:
            _see_that_changes_are_told(client, enable=settings.enable)
            start = f"__keyspace@{given.options.db}__:"
            pattern, prefix = start + settings.pattern, len(start)
        try:
            _show(client, pattern, prefix, settings.count)
        except KeyboardInterrupt:
            sys.stderr.write("\n")
    return 0


def _show(client: Client, pattern: str, prefix: int, count: int | None) -> None:
    gaps = 0
    with client.listen(patterns=[pattern]) as messages:
        for number, message in enumerate(messages, 1):
            if messages.gaps > gaps:
                gaps = messages.gaps
                sys.stderr.write("kv: the connection was lost meanwhile, and something may be missing here\n")
            moment = time.strftime("%H:%M:%S")
            name = quoted(message.channel[prefix:])
            data = quoted(message.data) if not prefix else harmless(message.data.decode("utf-8", "replace"))
            sys.stdout.write(f"{moment} {name} {data}\n" if not prefix else f"{moment} {data:10} {name}\n")
            sys.stdout.flush()
            if number == count:
                return


def _see_that_changes_are_told(client: Client, *, enable: bool) -> None:
    """Raise Problem unless the server notifies of changes."""
    try:
        told = client.config_get("notify-keyspace-events").get("notify-keyspace-events", "")
    except KVError:  # one that does not let us ask may tell nevertheless
        return
    if "K" in told and set(told) - {"K", "E"}:
        return
    if not enable:
        raise Problem("this server does not tell of changes: add --enable, or set notify-keyspace-events to KA there")
    client.config_set({"notify-keyspace-events": "".join(sorted(set(told) | set(_NEEDED)))})
