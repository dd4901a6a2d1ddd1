"""The HTTP port's sockets and threads: accept, one thread a connection, one request each, and an end to every wait.

Those who speak RESP are not to notice: the port has an accept thread and a limit of connections of its own, a request
has to arrive within seconds, and a response that is not taken ends its connection.

Who owns what: as in ``kvserver/server.py``, each connection's thread alone closes its socket; ``stop`` shuts them down,
and the accept thread, which has started them, ends last.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from kvserver.listeners import Listener, is_local, listen_for_http, show
from kvserver.observe.log import get_logger
from kvserver.threads import ConnectionThreads
from kvserver.web.exchange import Exchange, RefusalError, Response
from kvserver.web.sampler import Sampler
from kvserver.web.site import Site
from kvserver.web.visitor import Visitor

if TYPE_CHECKING:
    from kvserver.state import State

_MOST_CONNECTIONS = 64
_FOR_PROBES = 16
"""Connections beyond these, which get an answer to /healthz and /readyz, and to nothing else. When they are taken, too,
the oldest one that has sent no request yet, or has its response already, makes room: those who only hold connections
keep no probe out."""
_MOST_STREAMS = 16
"""Live pages at a time. They may stay for days; the rest of the connections is for what ends soon."""
_REQUEST_SECONDS = 5.0
"""How long a request may take to arrive."""
_SEND_SECONDS = 10.0
"""How long what is sent at a time may take to be taken."""
_SEND_BUFFER = 64 * 1024
"""Bytes that the kernel keeps for a client which does not read."""
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 256 * 1024
_END_SECONDS = 0.4
_BUSY = "Too many connections; try again later."
_BACK_OFF_SECONDS = 0.05
_READ = 16 * 1024
T = TypeVar("T")
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class WebServer:
    """The HTTP port of one server: ``listen``, then ``start``, then ``stop``, once each."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._sampler = Sampler(state)
        self._site = Site(state, self._sampler)
        self._listeners: list[Listener] = []
        self._threads: ConnectionThreads[_Connection] = ConnectionThreads()
        self._streams = threading.BoundedSemaphore(_MOST_STREAMS)
        self._ending = threading.Event()
        self._wake: socket.socket  # a byte sent here ends the accept thread; there from listen on
        self._woken: socket.socket
        self._accepting = threading.Thread(target=self._accept_all, name="kvserver-web-accept")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, as ``host:port``."""
        return tuple(show(listener.sock.getsockname()) for listener in self._listeners)

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._listeners[0].port

    def listen(self, listeners: list[Listener]) -> None:
        """Take the port, if these are not there already.

        Raises:
            ConfigError: it cannot be had.
        """
        self._listeners = listeners or listen_for_http(self._state.config)
        self._wake, self._woken = socket.socketpair()

    @property
    def listeners(self) -> list[Listener]:
        """The listening sockets."""
        return self._listeners

    def start(self) -> None:
        """Serve."""
        self._sampler.start()
        self._accepting.start()

    def stop(self) -> bool:
        """End what is in progress and close; whether all threads have ended. ``state.stopping`` has been set.

        Takes less than a second. Safe after ``listen`` alone, and again.
        """
        self._ending.set()
        with contextlib.suppress(OSError):  # it has ended
            self._wake.send(b"\0")
        for connection in self._threads.connections():
            connection.abort()
        ended = self._threads.wait(_END_SECONDS)
        if self._accepting.ident is not None and ended:
            self._accepting.join()
        self._sampler.join()
        self.close()
        return ended

    def close(self) -> None:
        """Close the listening sockets."""
        for listener in self._listeners:
            listener.close()
        self._wake.close()
        self._woken.close()

    # Accepting

    def _accept_all(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                for listener in self._listeners:
                    selector.register(listener.sock, selectors.EVENT_READ, listener.sock)
                while not self._ending.is_set():
                    for key, _ in selector.select():
                        if key.data is not None:
                            self._accept(key.data)
        finally:
            self._threads.wait()

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection and start its thread. Never raises."""
        try:
            sock, peer = listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self._ending.wait(_BACK_OFF_SECONDS)
            return
        if self._state.is_protected() and not is_local(peer):
            self._refuse(sock, "protected", HTTPStatus.FORBIDDEN, "Without a password, only this machine is let in.")
            return
        served = self._threads.connections()
        if len(served) >= _MOST_CONNECTIONS + _FOR_PROBES and not self._make_room(served):
            self._refuse(sock, "too_many", HTTPStatus.SERVICE_UNAVAILABLE, _BUSY)
            return
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if sock.family != getattr(socket, "AF_UNIX", None):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            visitor = Visitor(self._state, show(peer) or "unix:0", show(sock.getsockname()))
            connection = _Connection(sock, visitor, self._site, self._streams)
            connection.is_for_probes = len(served) >= _MOST_CONNECTIONS
            self._threads.start(connection, connection.run, f"kvserver-web-{visitor.session.id}")
        except (OSError, RuntimeError):  # reset before it began, or the system gives no more threads
            self._refuse(sock, "no_thread", HTTPStatus.SERVICE_UNAVAILABLE, _BUSY)

    def _make_room(self, served: list[_Connection]) -> bool:
        """End the oldest connection that is idle, if one is; whether there is room, or soon will be.

        Its request may arrive at this moment, and is then lost, or the end of its response may be: the client sees a
        connection reset, as one that is refused would have.
        """
        if len(served) >= 2 * _MOST_CONNECTIONS:  # those that were ended have not gone yet
            return False
        oldest = next((connection for connection in served if connection.is_idle), None)
        if oldest is not None:
            self._site.count_refusal("too_many")
            get_logger().info("web.refused", why="too_many")
            oldest.abort()
        return oldest is not None

    def _refuse(self, sock: socket.socket, reason: str, status: HTTPStatus, text: str) -> None:
        """Say in one line why not, if the socket takes it at once, and close."""
        self._site.count_refusal(reason)
        get_logger().info("web.refused", why=reason)
        answer = RefusalError(status, reason, text)
        with contextlib.suppress(OSError), sock:
            sock.setblocking(False)
            sock.send(Exchange().whole(answer.response()))


class _Connection:
    """One request and its response."""

    def __init__(self, sock: socket.socket, visitor: Visitor, site: Site, streams: threading.BoundedSemaphore) -> None:
        self._sock, self._visitor, self._site, self._streams = sock, visitor, site, streams
        self._exchange = Exchange()
        self.is_for_probes = False  # set before it starts
        # Its request has not arrived, or its response has been sent. Set by its thread, cleared by that and by who
        # ends it; read by the accept thread, which at worst ends one connection too many.
        self.is_idle = True

    def abort(self) -> None:
        """End it, from another thread."""
        self.is_idle = False
        with contextlib.suppress(OSError):  # it has ended
            self._sock.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Serve, then close."""
        try:
            with self._visitor:
                self._serve()
            self.is_idle = True
            self._linger()
        except TimeoutError:
            self._site.count_refusal("stalled")
            get_logger().info("web.stalled", client=self._visitor.session.id)
        except OSError:  # gone, which is its right
            get_logger().debug("web.lost", client=self._visitor.session.id)
        finally:
            self._sock.close()

    def _serve(self) -> None:
        try:
            deadline = time.monotonic() + _REQUEST_SECONDS
            request = self._receive(self._exchange.feed_head, deadline)
            self.is_idle = False
            if self.is_for_probes and not self._site.is_probe(request):
                raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, "too_many", _BUSY)
            answer = self._site.admit(request, self._visitor)
            response = answer(self._body(deadline) if request.method == "POST" else b"")
            if request.method == "HEAD":
                response = replace(response, stream=None)
        except RefusalError as refusal:
            self._site.count_refusal(refusal.reason)
            get_logger().info("web.refused", why=refusal.reason, client=self._visitor.session.id)
            response = refusal.response()
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect in one answer must not end the thread without any
            response = self._failed(error)
        self._sock.settimeout(_SEND_SECONDS)
        if response.stream is None:
            self._sock.sendall(self._exchange.whole(response))
        else:
            self._send_stream(response, response.stream)

    def _failed(self, defect: Exception) -> Response:
        """The answer for what nobody expected. Its text stays out of the log, for it may hold somebody's data."""
        self._site.count_refusal("defect")
        frames = traceback.extract_tb(defect.__traceback__)[-3:]
        get_logger().error(
            "web.defect", exception=type(defect).__name__, at=[f"{frame.name}:{frame.lineno}" for frame in frames]
        )
        return RefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, "defect", "This failed; the log says where.").response()

    def _body(self, deadline: float) -> bytes:
        """The request's body, from one who may ask."""
        body = self._exchange.feed_body()
        return self._receive(self._exchange.feed_body, deadline) if body is None else body

    def _receive(self, feed: Callable[[bytes], T | None], deadline: float) -> T:
        """What ``feed`` makes of what arrives, once it makes something of it.

        Raises:
            RefusalError: it cannot be read, or does not arrive in time.
        """
        while True:
            try:
                self._sock.settimeout(max(0.001, deadline - time.monotonic()))
                data = self._sock.recv(_READ)
            except TimeoutError:
                data = None
            if data == b"" and self._exchange.is_untouched:  # somebody who only looked whether the port is open
                raise ConnectionAbortedError
            if data is None or time.monotonic() >= deadline:
                raise RefusalError(HTTPStatus.REQUEST_TIMEOUT, "slow", "The request did not arrive in time.")
            found = feed(data)
            if found is not None:
                return found

    def _send_stream(self, response: Response, stream: Iterator[bytes]) -> None:
        exchange, send = self._exchange, self._sock.sendall
        if not self._streams.acquire(blocking=False):
            self._site.count_refusal("too_many_streams")
            refusal = RefusalError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too_many_streams",
                "Too many pages watch already.",
                {"Retry-After": "10"},
            )
            send(exchange.whole(refusal.response()))
            return
        try:
            send(exchange.begin_stream(response))
            for piece in stream:
                send(exchange.piece(piece))
            send(exchange.end())
        finally:
            self._streams.release()

    def _linger(self) -> None:
        """Take in what has been sent and not read, for a moment: closing before would destroy the response."""
        with contextlib.suppress(TimeoutError):
            self._sock.shutdown(socket.SHUT_WR)
            until, budget = time.monotonic() + _LINGER_SECONDS, _LINGER_BYTES
            while budget > 0 and (left := until - time.monotonic()) > 0:
                self._sock.settimeout(left)
                rest = self._sock.recv(_READ)
                if not rest:
                    return
                budget -= len(rest)
