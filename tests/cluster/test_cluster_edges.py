"""The client of a cluster where nobody looks: forked children, and first calls while a node is away."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest
from cluster.harness import Cluster, real_cluster

import kvclient
from kvclient.cluster.slots import SlotMap, slot_of
from kvclient.errors import CannotConnectError, ClientClosedError, ServerError


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_asks_for_the_slots_itself(cluster: Cluster) -> None:
    with kvclient.connect(cluster.url, timeout=10) as kv:
        nodes = kv._pool
        assert kv.set("k", 1)
        nodes._news = threading.Event()  # type: ignore[attr-defined]  # as another thread may be asking
        nodes._lock.acquire()  # type: ignore[attr-defined]  # and may hold it
        child = os.fork()
        if child == 0:
            status = 1
            signal.alarm(30)  # a child that waits for its parent's lock does so for good
            with contextlib.suppress(BaseException):
                seen = nodes.slots = SlotMap(())  # type: ignore[attr-defined]
                nodes.refresh(seen, time.monotonic() + 5)  # type: ignore[attr-defined]
                assert nodes.slots.primaries  # type: ignore[attr-defined]
                assert kv.get("k") == b"1"
                kv.close()
                status = 0
            os._exit(status)
        nodes._lock.release()  # type: ignore[attr-defined]
        nodes._news = None  # type: ignore[attr-defined]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert kv.get("k") == b"1"


def test_what_any_node_knows_is_asked_of_one_that_lives() -> None:
    """A client finds its way in, and what commands are, while nodes are away that nobody has replaced yet."""
    with real_cluster(timeout=20_000) as cluster:
        *away, last = cluster.primaries()
        with kvclient.connect(cluster.url, timeout=10) as kv:
            for node in away:
                node.kill()
            key = next(n for n in range(1000) if cluster.owner(slot_of(b"%d" % n)) is last)
            for command in (
                "APPEND",
                "STRLEN",
                "GET",
                "TTL",
                "PERSIST",
                "INCR",
                "DECR",
                "GETDEL",
                "TYPE",
                "EXPIRETIME",
            ):
                with contextlib.suppress(ServerError):  # such as that there is a word too few
                    kv.execute(command, key)
            for _ in range(6):
                kvclient.connect(cluster.url, timeout=10).close()
        for node in cluster.nodes:
            node.kill()
        with pytest.raises(CannotConnectError, match="says who has which slot"):
            kvclient.connect(cluster.url, timeout=10)


def test_a_pool_that_is_closed_is_no_closed_client(cluster: Cluster) -> None:
    """As when a node leaves the cluster while somebody is about to ask it."""
    with kvclient.connect(cluster.url, timeout=10) as kv:
        nodes = kv._pool
        for address in nodes.slots.primaries:  # type: ignore[attr-defined]
            nodes.pool(address).close()  # type: ignore[attr-defined]
        with pytest.raises(CannotConnectError, match="not part of the cluster any more"):
            nodes.take(time.monotonic() + 5)
        nodes.refresh(nodes.slots, time.monotonic() + 5)  # type: ignore[attr-defined]  # others say
        kv.close()
        with pytest.raises(ClientClosedError):
            nodes.take(time.monotonic() + 5)
