"""Calls that are interrupted anywhere: by a signal, by an exception put into a thread, by cancelling a task.

Each answer carries its question, so an answer that somebody else's question got would be found out.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from client.interrupting import DelayingProxy
from support import open_descriptors

import kvclient
from kvclient.errors import KVError


@pytest.fixture
def proxy(own_url: str) -> Iterator[DelayingProxy]:
    made = DelayingProxy(int(own_url.rpartition(":")[2]), seed=11)
    yield made
    made.stop()


def interrupted(kind: str, times: int, url: str) -> None:
    command = [sys.executable, str(Path(__file__).with_name("interrupting.py")), kind, str(times), url]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-5000:]


KINDS = pytest.mark.parametrize("kind", ["signal", "threads", "cancelling"])


@KINDS
def test_nobody_gets_anothers_answer(own_url: str, kind: str) -> None:
    interrupted(kind, 400, own_url)


@pytest.mark.slow
@pytest.mark.timeout(600)
@KINDS
def test_nobody_gets_anothers_answer_ten_thousand_times(own_url: str, kind: str) -> None:
    interrupted(kind, 10_000, own_url)


def test_two_hundred_threads_and_four_connections(proxy: DelayingProxy) -> None:
    """Every call is answered, nobody starves, and there are never more connections than four."""
    answered: list[list[bytes]] = [[] for _ in range(200)]
    start = threading.Barrier(200)

    def ask(name: int) -> None:
        start.wait(30)
        answered[name] += [kv.echo(b"%d.%d" % (name, number)) for number in range(5)]

    before = open_descriptors()
    with kvclient.connect(proxy.url, max_connections=4, timeout=60) as kv:
        threads = [threading.Thread(target=ask, args=(name,)) for name in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answered == [[b"%d.%d" % (name, number) for number in range(5)] for name in range(200)]
        assert proxy.most <= 4
    deadline = time.monotonic() + 10
    while open_descriptors() > before:  # the proxy and the server close theirs in their own time
        assert time.monotonic() < deadline


def test_closing_under_two_hundred_threads(proxy: DelayingProxy) -> None:
    start = threading.Barrier(201)
    outcomes: list[object] = []

    def ask() -> None:
        start.wait(30)
        try:
            while True:
                kv.ping()
        except KVError as error:
            outcomes.append(type(error).__name__)

    kv = kvclient.connect(proxy.url, max_connections=4, timeout=30)
    threads = [threading.Thread(target=ask) for _ in range(200)]
    for thread in threads:
        thread.start()
    start.wait(30)
    kv.ping()
    kv.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert set(outcomes) == {"ClientClosedError"}


def test_a_storm_of_garbage_collection(proxy: DelayingProxy) -> None:
    """Collections run at every allocation or so, with things in them that were never finished."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        with kvclient.connect(proxy.url, max_connections=3) as kv:

            def work(name: int) -> None:
                for number in range(40):
                    unfinished = kv.pipeline()
                    unfinished.set("k", "v")
                    cycle: list[object] = [unfinished, kv.transaction(), kv.lock("l"), kv.open("k", "wb")]
                    cycle.append(cycle)
                    assert kv.echo(b"%d.%d" % (name, number)) == b"%d.%d" % (name, number)

            threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
            assert len(kv._pool) <= 3
    finally:
        gc.set_threshold(*thresholds)
