"""A program whose calls are interrupted anywhere: interrupting.py KIND TIMES URL. test_interruptions.py runs it.

It is a process of its own, since an exception that comes up anywhere also does so in what measures coverage, which then
waits for itself. Everything goes through a proxy that delays and cuts up what it passes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import random
import select
import signal
import socket
import sys
import threading

import kvclient
import kvclient.aio
from kvclient.errors import KVError


class DelayingProxy:
    """Passes bytes on a little later and in pieces, by chance."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._chance = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ended, self._end = socket.socketpair()
        self.most = 0  # connections at a time
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        ends: dict[socket.socket, socket.socket] = {}
        while True:
            ready, _, _ = select.select([self._listener, self._ended, *ends], [], [])
            if self._ended in ready:
                break
            for sock in ready:
                if sock is self._listener:
                    client, _ = sock.accept()
                    server = socket.create_connection(("127.0.0.1", self._port))
                    for end in (client, server):
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    ends |= {client: server, server: client}
                    self.most = max(self.most, len(ends) // 2)
                elif sock in ends:
                    self._pass_on(sock, ends)
        for sock in ends:
            sock.close()

    def _pass_on(self, sock: socket.socket, ends: dict[socket.socket, socket.socket]) -> None:
        other = ends[sock]
        try:
            data = sock.recv(self._chance.choice((1, 7, 65536)))
            if self._chance.random() < 0.1:
                select.select([], [], [], 0.0005)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        for each in (sock, other):
            each.close()
            ends.pop(each, None)

    def stop(self) -> None:
        self._end.send(b"x")
        self._thread.join()
        for sock in (self._listener, self._ended, self._end):
            sock.close()


def by_signal(proxy: DelayingProxy, many: int) -> None:
    """KeyboardInterrupt, as from Ctrl-C, at any moment of the main thread."""
    chance = random.Random(1)
    interrupts = answers = number = wrong = 0
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with kvclient.connect(proxy.url, max_connections=2, retries=0) as kv:
            while interrupts < many:
                number += 1
                question = b"%d" % number
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00001, 0.006))
                    with contextlib.suppress(KVError):
                        answer = kv.echo(question)
                        answers += 1
                        wrong += answer != question
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupts += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert kv.echo("after all") == b"after all"
            assert len(kv._pool) <= 2
            assert not kv._pool._waiters
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert answers
    assert not wrong


class InterruptionError(BaseException):
    """Put into a thread from outside."""


def by_exception_in_threads(proxy: DelayingProxy, many: int) -> None:
    """An exception put into threads that share a client, at any moment."""
    ended = threading.Event()
    wrong: list[tuple[bytes, bytes]] = []
    answers: list[int] = []

    def ask(name: int, kv: kvclient.Client) -> None:
        number = 0
        while not ended.is_set():
            try:
                while not ended.is_set():
                    number += 1
                    question = b"%d.%d" % (name, number)
                    with contextlib.suppress(KVError):
                        answer = kv.echo(question)
                        if answer != question:
                            wrong.append((question, answer))
                        answers.append(name)
            except InterruptionError:
                continue

    chance = random.Random(2)
    # It may come up in a callback such as __del__, or where a thread is just between two calls. Neither is of interest.
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = sys.unraisablehook = lambda _: None
    try:
        with kvclient.connect(proxy.url, max_connections=3, retries=0) as kv:
            threads: list[threading.Thread] = []
            interrupts = 0
            while interrupts < many or len(answers) <= many / 20:
                interrupts += 1
                assert interrupts < 20 * many, "hardly any call has come to its end"
                threads = [thread for thread in threads if thread.is_alive()]
                while len(threads) < 4:
                    threads.append(threading.Thread(target=ask, args=(len(threads), kv)))
                    threads[-1].start()
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(chance.choice(threads).ident or 0), ctypes.py_object(InterruptionError)
                )
                # Where everything is slow, and no call ends between two interruptions, they come less often.
                select.select([], [], [], chance.uniform(0, 0.003 * max(1, interrupts / many) ** 2))
            ended.set()
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()
            gc.collect()
            assert kv.echo("after all") == b"after all"
            assert len(kv._pool) <= 3
    finally:
        threading.excepthook, sys.unraisablehook = hooks
    assert wrong == []


def by_cancelling(proxy: DelayingProxy, many: int) -> None:
    """Tasks that share a client are cancelled at any moment."""
    chance = random.Random(3)
    counts = {"cancelled": 0, "answered": 0}

    async def ask(kv: kvclient.aio.AsyncClient, question: bytes) -> None:
        if chance.random() < 0.5:
            assert await kv.echo(question) == question
        else:
            async with kv.pipeline() as pipeline:
                answer = pipeline.echo(question)
                pipeline.echo(b"other")
            assert answer.result() == question
        counts["answered"] += 1

    async def main() -> None:
        async with kvclient.aio.connect(proxy.url) as kv:
            number = 0
            while counts["cancelled"] < many:
                tasks = [asyncio.create_task(ask(kv, b"%d.%d" % (number, each))) for each in range(8)]
                number += 1
                await asyncio.sleep(chance.uniform(0, 0.003))
                for task in chance.sample(tasks, 4):
                    task.cancel()
                for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(outcome, asyncio.CancelledError):
                        counts["cancelled"] += 1
                    elif outcome is not None:
                        raise outcome
            assert await kv.echo("after all") == b"after all"

    asyncio.run(main())
    assert counts["answered"] > many / 4


def main(kind: str, times: str, url: str) -> None:
    proxy = DelayingProxy(int(url.rpartition(":")[2]), seed=11)
    try:
        {"signal": by_signal, "threads": by_exception_in_threads, "cancelling": by_cancelling}[kind](proxy, int(times))
    finally:
        proxy.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
