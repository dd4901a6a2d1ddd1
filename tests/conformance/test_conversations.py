"""Several connections that affect each other, against Valkey: transactions, subscriptions, notifications.

A conversation is a line a step: who speaks, and what it says. ``=2`` at the end waits for so many replies, not for one.
``{b}`` is the number of connection b.
What each connection receives, to the end, is the same bytes from both servers, in RESP2 and in RESP3.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conformance.oracle import Wire

import kvserver

FOLDER = Path(__file__).parent / "conversations"


def conversations() -> Iterator[tuple[str, int, list[str]]]:
    """Title, protocol version, steps; a file that ends in 3 is for RESP3 alone."""
    for file in sorted(FOLDER.glob("*.txt")):
        for part in ("\n" + file.read_text(encoding="utf-8")).split("\n## ")[1:]:
            title, _, steps = part.partition("\n")
            for protocol in (3,) if file.stem.endswith("3") else (2, 3):
                yield f"{file.stem}: {title} ({protocol})", protocol, steps.strip().splitlines()


CONVERSATIONS = {title: (protocol, steps) for title, protocol, steps in conversations()}


def converse(port: int, steps: list[str], protocol: int) -> dict[str, bytes]:
    """All bytes each connection received."""
    with ExitStack() as stack:
        wires: dict[str, Wire] = {}
        heard: dict[str, bytes] = {}
        numbers: dict[str, str] = {}
        for step in steps:
            name, _, line = step.partition(" ")
            if name not in wires:
                wires[name] = stack.enter_context(Wire(port))
                wires[name].ask("HELLO", protocol)
                heard[name] = b""
                numbers[name] = wires[name].ask("CLIENT", "ID").decode()[1:-2]
            command, _, count = line.format_map(numbers).partition(" =") if "{" in line else line.partition(" =")
            wires[name].send(command.encode() + b"\r\n")
            reply = b"".join(wires[name].read() for _ in range(int(count or 1)))
            heard[name] += _with_names(reply, numbers) if re.search("TRACKINGINFO|GETREDIR", command) else reply
        for name, wire in wires.items():
            rest = _rest(wire)
            heard[name] += _with_names(rest, numbers) if "{" in str(steps) else rest
            heard[name] = re.sub(rb"(?<=redir-broken\r\n):\d+", b":number", heard[name])
        return heard


def _with_names(reply: bytes, numbers: dict[str, str]) -> bytes:
    """The two servers number their connections differently."""
    for name, number in numbers.items():
        reply = reply.replace(b":%b\r\n" % number.encode(), b":%b\r\n" % name.encode())
    return reply


def _rest(wire: Wire) -> bytes:
    wire._sock.shutdown(socket.SHUT_WR)
    return wire._file.read()


@pytest.mark.parametrize("title", CONVERSATIONS)
def test_conversation(server: kvserver.Server, valkey_port: int, title: str) -> None:
    protocol, steps = CONVERSATIONS[title]
    start = ["z FLUSHALL", "z CONFIG SET notify-keyspace-events ''"]
    ours, theirs = (converse(port, start + steps, protocol) for port in (server.port, valkey_port))
    for name in ours:
        assert ours[name].split(b"\r\n") == theirs[name].split(b"\r\n"), name
