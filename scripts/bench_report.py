"""What was measured, as Markdown tables and as a chart (SVG)."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from bench_workloads import Sample

Results = dict[str, dict[str, list[Sample]]]
"""Samples by workload and server."""
REFERENCE = "redis-server"
MANAGER = "Manager().dict()"
COMPILED = "kvserver, compiled"


def machine() -> str:
    """The machine and the day, in a line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{time.strftime('%Y-%m-%d')}, {model}, {os.cpu_count()} CPUs, Linux {platform.release().partition('-')[0]},"
        f" Python {platform.python_version()}; servers and clients on the same machine"
    )


def spread(values: Sequence[float], digits: int = 0) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    text = f"{middle:,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({low:,.{digits}f} to {high:,.{digits}f})"


def ratio(found: dict[str, list[Sample]], server: str) -> float | None:
    """The rate beside the reference's, round by round, so that what else the machine does meets both; the median."""
    if REFERENCE not in found or server not in found:
        return None
    pairs = zip(found[server], found[REFERENCE], strict=False)
    return statistics.median(ours.rate / theirs.rate for ours, theirs in pairs)


def tables(results: Results, servers: Sequence[str]) -> str:
    parts = [
        _table("Commands a second (lowest to highest)", results, servers, lambda each: each.rate, 0),
        _ratios(results, servers),
        _programs(results),
        _table("Server CPU time a command, microseconds", results, servers, lambda each: each.cpu, 1),
        _table("Context switches of the server a command", results, servers, lambda each: each.switches, 2),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(title: str, servers: Sequence[str]) -> list[str]:
    return [f"| {title} | " + " | ".join(servers) + " |", "|---|" + "---|" * len(servers)]


def _table(
    title: str, results: Results, servers: Sequence[str], pick: Callable[[Sample], float | None], digits: int
) -> str:
    lines = _head(title, servers)
    for name, found in results.items():
        cells = []
        for server in servers:
            values = [value for sample in found.get(server, []) if (value := pick(sample)) is not None]
            cells.append(spread(values, digits) if values else "")
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _ratios(results: Results, servers: Sequence[str]) -> str:
    others = [server for server in servers if server != REFERENCE]
    lines = _head(f"Rate as a ratio to {REFERENCE}", others)
    for name, found in results.items():
        values = [ratio(found, server) for server in others]
        if any(value is not None for value in values):
            lines.append(
                f"| {name} | " + " | ".join("" if value is None else f"{value:.2f}" for value in values) + " |"
            )
    return "\n".join(lines) if len(lines) > 2 else ""


_PROGRAMS = (
    *(
        (f"{work}, {crowd}", ("kvclient", server), ("redis-py", REFERENCE))
        for server in ("kvserver", COMPILED)
        for work in ("GET", "pipelines of 100 SETs", "mixed, Zipf")
        for crowd in ("1 process", "4 processes")
    ),
    *(("GET, 1 process", ("kvclient", server), ("manager", MANAGER)) for server in ("kvserver", COMPILED)),
)
"""What a program in Python may have in place of what it has: workload, and library and server of both."""


def _programs(results: Results) -> str:
    """How many times as much a program gets done with the one library and server as with the other."""
    lines = ["| A program in Python, commands a second | with | in place of | ratio |", "|---|---|---|---|"]
    for work, with_these, in_place_of in _PROGRAMS:
        both = []
        for library, server in (with_these, in_place_of):
            name, _, crowd = work.rpartition(", ")
            both.append(results.get(f"{name}, {library}, {crowd}", {}).get(server, []))
        if all(both):
            value = statistics.median(new.rate / old.rate for new, old in zip(*both, strict=False))
            old_names = MANAGER if in_place_of[1] == MANAGER else " on ".join(in_place_of)
            lines.append(f"| {work} | {' on '.join(with_these)} | {old_names} | {value:.2f} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def single_values(title: str, rows: dict[str, dict[str, list[float]]], digits: int) -> str:
    """A table of what is no rate: memory, seconds."""
    servers = list(dict.fromkeys(server for row in rows.values() for server in row))
    lines = _head(title, servers)
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(spread(row[at], digits) if at in row else "" for at in servers) + " |")
    return "\n".join(lines) if rows else ""


_COLOURS = ("#3b6ea8", "#b0b7bf", "#c98b3a", "#6aa06a", "#a86a8f", "#7a7a7a")
_BAR, _GAP, _LEFT, _WIDTH = 12, 14, 340, 420


def chart(results: Results, servers: Sequence[str]) -> str:
    """Bars of rates as ratios to the reference, a group for each workload."""
    others = [server for server in servers if server != REFERENCE]
    groups = [
        (name, [(server, value) for server in others if (value := ratio(found, server)) is not None])
        for name, found in results.items()
    ]
    groups = [(name, bars) for name, bars in groups if bars]
    others = [server for server in others if any(server == name for _, bars in groups for name, _ in bars)]
    longest = max([1.0, *(value for _, bars in groups for _, value in bars)])
    at, body = 60, []
    for name, bars in groups:
        middle = at + _BAR * len(bars) / 2 + 4
        body.append(f'<text x="{_LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(name)}</text>')
        for server, value in bars:
            width = value / longest * _WIDTH
            colour = _COLOURS[others.index(server) % len(_COLOURS)]
            body.append(f'<rect x="{_LEFT}" y="{at}" width="{width:.1f}" height="{_BAR - 1}" fill="{colour}"/>')
            body.append(f'<text x="{_LEFT + width + 4:.1f}" y="{at + 9}" font-size="9">{value:.2f}</text>')
            at += _BAR
        at += _GAP
    one = _LEFT + _WIDTH / longest
    body.append(f'<line x1="{one:.1f}" y1="50" x2="{one:.1f}" y2="{at}" stroke="#888" stroke-dasharray="3 3"/>')
    legend = "".join(
        f'<rect x="{10 + 150 * place}" y="28" width="10" height="10" fill="{_COLOURS[place % len(_COLOURS)]}"/>'
        f'<text x="{24 + 150 * place}" y="37">{escape(server)}</text>'
        for place, server in enumerate(others)
    )
    width = max(_LEFT + _WIDTH + 60, 150 * len(others) + 20)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{at + 30}" font-family="sans-serif"'
        f' font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="10" y="18" font-size="13">Commands a second, {REFERENCE} = 1</text>{legend}{"".join(body)}'
        f'<text x="10" y="{at + 18}" font-size="9">{escape(machine())}</text></svg>\n'
    )
