"""Several connections that affect each other, against Valkey: transactions, subscriptions, notifications.

A conversation is a line a step: who speaks, and what it says. ``=2`` at the end waits for so many replies, not for one.
What each connection receives, to the end, is the same bytes from both servers, in RESP2 and in RESP3.
"""

from __future__ import annotations

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
        for step in steps:
            name, _, line = step.partition(" ")
            if name not in wires:
                wires[name] = stack.enter_context(Wire(port))
                wires[name].ask("HELLO", protocol)
                heard[name] = b""
            command, _, count = line.partition(" =")
            wires[name].send(command.encode() + b"\r\n")
            heard[name] += b"".join(wires[name].read() for _ in range(int(count or 1)))
        for name, wire in wires.items():
            heard[name] += _rest(wire)
        return heard


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
