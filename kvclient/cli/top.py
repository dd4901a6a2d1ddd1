"""`kv top`: what a server is doing, second by second. Whatever it does not tell is left out.

Not here: how any of it is counted. Everything comes from INFO, LATENCY HISTOGRAM and SLOWLOG.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from kvclient.cli.display import has_rich
from kvclient.cli.session import Problem
from kvclient.client import Client, client_of
from kvclient.errors import KVError
from kvclient.serializers import PLAIN
from kvclient.text import harmless, quoted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from kvclient.cli.arguments import Given

_CLEAR: Final = "\x1b[H\x1b[2J"
_BUSIEST: Final = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The tool's options."""
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between two looks (1)")
    parser.add_argument("--once", action="store_true", help="show one interval and end")
    parser.epilog = "Ctrl-C ends it."


def run(given: Given) -> int:
    """Show it until it is interrupted; returns the exit status."""
    interval = max(0.05, given.settings.interval)
    if given.options.nodes:
        raise Problem("this shows one server: give the URL of a node, as in valkey://HOST:PORT")
    with client_of(given.options, PLAIN) as client:
        client.check()
        before, pause = Look(client), threading.Event()
        try:
            while True:
                pause.wait(interval)
                now = Look(client)
                lines = list(map(harmless, report(before, now, given.options.address)))
                _show(lines, clear=not given.settings.once)
                if given.settings.once:
                    return 0
                before = now
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            return 0


def _show(lines: list[str], *, clear: bool) -> None:
    if clear and sys.stdout.isatty():
        sys.stdout.write(_CLEAR)
    if sys.stdout.isatty() and has_rich():
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False)
        for line in lines:
            text = Text(line)
            text.highlight_regex(r"^[a-z ]+(?=  )", "bold cyan")
            console.print(text, soft_wrap=True)
        return
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


class Look:
    """What the server has counted up to a moment."""

    def __init__(self, client: Client) -> None:
        self.moment = time.monotonic()
        self.info = client.info("everything") or client.info()
        self.histograms = _or_nothing(lambda: client.execute("LATENCY", "HISTOGRAM"))
        self.slow = _or_nothing(lambda: client.slowlog_get(5))


def _or_nothing(ask: Any) -> Any:
    try:
        return ask()
    except KVError:
        return None


def report(before: Look, now: Look, address: str) -> Iterator[str]:
    """The lines for the time between two looks."""
    info, seconds = now.info, max(1e-6, now.moment - before.moment)
    version = info.get("kvserver_version") or info.get("valkey_version") or info.get("redis_version", "")
    name = "kvserver" if "kvserver_version" in info else info.get("server_name", "redis")
    yield f"{name} {version} at {address}, up {int(info.get('uptime_in_seconds', 0)):,} s"
    yield f"operations   {_rate(before, now, 'total_commands_processed', seconds):,.0f} a second"
    yield f"connections  {info.get('connected_clients', '?')}, {info.get('blocked_clients', '0')} blocked"
    limit = int(info.get("maxmemory", 0))
    within = f" of {limit / 2**20:,.1f}" if limit else ""
    used, resident = (int(info.get(name, 0)) / 2**20 for name in ("used_memory", "used_memory_rss"))
    yield f"memory       {used:,.1f}{within} MiB data, {resident:,.1f} MiB in all"
    hits, misses = (_rate(before, now, f"keyspace_{what}", seconds) for what in ("hits", "misses"))
    ratio = f"{hits / (hits + misses):.1%}" if hits + misses else "no reads"
    yield f"hit ratio    {ratio}; {_rate(before, now, 'evicted_keys', seconds):,.0f} evicted a second"
    yield f"network      {_rate(before, now, 'total_net_input_bytes', seconds) / 1024:,.0f} KiB/s in, " + (
        f"{_rate(before, now, 'total_net_output_bytes', seconds) / 1024:,.0f} out"
    )
    yield from _latencies(before.histograms, now.histograms, seconds)
    if info.get("aof_enabled") == "1":
        waiting = info.get("aof_pending_bytes") or info.get("aof_buffer_length") or "0"
        yield f"journal      {waiting} bytes wait, last write {info.get('aof_last_write_status', '?')}"
    for entry in now.slow or ():
        words = " ".join(quoted(word) for word in entry.words[:4])
        yield f"slow         {entry.amount / 1000:,.1f} ms  {words}"[:160]


def _rate(before: Look, now: Look, name: str, seconds: float) -> float:
    return max(0, int(now.info.get(name, 0)) - int(before.info.get(name, 0))) / seconds


def _latencies(before: Any, now: Any, seconds: float) -> Iterator[str]:
    """The busiest commands: how often a second, and within which time half, 99 % and 99.9 % of them."""
    earlier, later = _counts(before), _counts(now)
    rows = []
    for name, counts in later.items():
        old = earlier.get(name, {})
        new = {bound: total - _at(old, bound) for bound, total in counts.items()}
        calls = max(new.values(), default=0)
        if calls > 0:
            rows.append((calls, name, new))
    for calls, name, counts in sorted(rows, reverse=True, key=lambda row: row[0])[:_BUSIEST]:
        times = "  ".join(f"{share:g} % {_within(counts, share)}" for share in (50, 99, 99.9))
        yield f"{name[:12]:12} {calls / seconds:10,.0f} a second  {times}"


def _at(counts: Mapping[int, int], bound: int) -> int:
    """How many took no longer than a bound: buckets that nothing was counted into are left out."""
    return max((total for each, total in counts.items() if each <= bound), default=0)


def _within(counts: Mapping[int, int], share: float) -> str:
    wanted = max(counts.values()) * share / 100
    bound = next(bound for bound, total in sorted(counts.items()) if total >= wanted)
    return f"{bound} us" if bound < 10_000 else f"{bound / 1000:.0f} ms"


def _counts(histograms: Any) -> dict[str, dict[int, int]]:
    """Cumulative counts by upper bounds in microseconds, by command; from RESP2 or RESP3."""
    return {
        name.decode("utf-8", "replace"): {int(bound): int(total) for bound, total in _pairs(fields[b"histogram_usec"])}
        for name, raw in _pairs(histograms)
        if b"histogram_usec" in (fields := dict(_pairs(raw)))
    }


def _pairs(reply: Any) -> list[tuple[Any, Any]]:
    if isinstance(reply, dict):
        return list(reply.items())
    return list(zip(reply[::2], reply[1::2], strict=False)) if isinstance(reply, list) else []
