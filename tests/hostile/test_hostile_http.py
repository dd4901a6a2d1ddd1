"""The HTTP port under attack: those who speak RESP notice nothing, and every wait has an end."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hostile.conftest import Besiege
from hostile.siege import PATIENCE, Siege, read_all, request, reset

from kvserver.web import server as web_server

HEAD = b"GET %b HTTP/1.1\r\nHost: localhost\r\n"
LIVE = HEAD % b"/api/live" + b"\r\n"
GET = HEAD % b"/healthz" + b"\r\n"


def connect(siege: Siege, receive_buffer: int = 0) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(PATIENCE)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", siege.arena.server.metrics_port))
    return sock


def answer(siege: Siege, data: bytes) -> bytes:
    with connect(siege) as sock:
        sock.sendall(data)
        return read_all(sock)


@contextmanager
def many(siege: Siege, count: int, data: bytes, receive_buffer: int = 0) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(siege, receive_buffer)) for _ in range(count)]
        for sock in socks:
            sock.sendall(data)
        yield socks


def test_a_hundred_browsers_that_never_read(besiege: Besiege, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "_SEND_SECONDS", 0.2)
    monkeypatch.setattr(web_server, "_SEND_BUFFER", 4096)
    with besiege(metrics_port=0, log_lines=3) as siege:
        with many(siege, 100, LIVE, receive_buffer=4096) as socks:
            siege.bystander.is_served()
            first = [sock.recv(12) for sock in socks]
            assert first.count(b"HTTP/1.1 200") >= web_server._MOST_STREAMS
            assert first.count(b"HTTP/1.1 503") > 0  # they were told to come later
            siege.bystander.is_served()
            deadline = time.monotonic() + PATIENCE
            while not (is_well := b"200" in answer(siege, GET)) and time.monotonic() < deadline:
                pass
            assert is_well
        siege.bystander.is_served()


def test_who_does_not_take_the_answer_is_ended(besiege: Besiege, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "_SEND_SECONDS", 0.2)
    monkeypatch.setattr(web_server, "_SEND_BUFFER", 4096)
    with besiege(metrics_port=0, log_lines=1) as siege:
        siege.arena.ask(b"SETRANGE", b"large", b"1000000", b"x")
        with connect(siege, receive_buffer=4096) as sock:
            sock.sendall(HEAD % b"/api/key?key=bGFyZ2U=" + b"\r\n")
            while not siege.log():
                siege.bystander.is_served()
        assert "web.stalled" in siege.log()[0]


NOT_HTTP = [
    request(b"PING"), b"PING\r\n", b"*1\r\n$4\r\nPING\r\n" * 1000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00" * 100, b"\xff" * 70_000, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET  /  HTTP/1.1\r\n\r\n",
    b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    HEAD % b"/" + b"A\r\n\r\n", HEAD % b"/" + b" folded: x\r\n\r\n", HEAD % b"/" + b"a b: c\r\n\r\n",
    HEAD % b"/\x00" + b"\r\n",
    HEAD % b"/" + b"Content-Length: -1\r\n\r\n",
    HEAD % b"/" + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    HEAD % b"/" + b"Transfer-Encoding: gzip\r\n\r\n", HEAD % b"/" + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
]  # fmt: skip


def test_what_is_not_http(besiege: Besiege) -> None:
    with besiege(metrics_port=0) as siege:
        for data in NOT_HTTP:
            with connect(siege) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                received = read_all(sock)
            assert received[:9] == b"HTTP/1.1 ", data
            assert received[9:12] in (b"400", b"404", b"405", b"421", b"501"), data


def test_resp_is_told_at_once(besiege: Besiege) -> None:
    with besiege(metrics_port=0, log_lines=1) as siege:
        assert answer(siege, request(b"PING")).startswith(b"HTTP/1.1 400 ")
        assert len(siege.log()) == 1


@pytest.mark.parametrize(
    "flood",
    [
        b"".join(b"x%d: y\r\n" % number for number in range(10_000)),
        b"x: " + b"y" * 1_000_000,
        b"Cookie: a\r\n" * 5000,
    ],
    ids=["many", "long", "same"],
)
def test_a_flood_of_headers(besiege: Besiege, flood: bytes) -> None:
    with besiege(metrics_port=0, log_lines=1) as siege:
        assert answer(siege, HEAD % b"/" + flood).startswith((b"HTTP/1.1 431 ", b""))


def test_a_body_that_is_too_large(besiege: Besiege) -> None:
    with besiege(metrics_port=0, web_writes="yes", log_lines=1) as siege:
        head = b"POST /api/key HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        sent = head + b"Content-Length: 999999999999\r\n\r\n" + b"x" * 3_000_000
        assert answer(siege, sent).startswith((b"HTTP/1.1 413 ", b""))


@pytest.mark.parametrize("start", [b"", b"G", HEAD % b"/", b"POST /api/key HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"])
def test_slow_headers(besiege: Besiege, monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    """Each byte comes in time, the request does not."""
    monkeypatch.setattr(web_server, "_REQUEST_SECONDS", 0.5)
    with besiege(metrics_port=0, log_lines=1) as siege, connect(siege) as sock:
        sock.sendall(start)
        began = time.monotonic()
        sock.settimeout(0.05)
        received = b""
        while b"\r\n\r\n" not in received:
            try:
                received += sock.recv(1000)
            except TimeoutError:
                sock.sendall(b"a" if b"Content" in start or b"GET" in start else b"G")
            assert time.monotonic() < began + PATIENCE
        assert received.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 "))


METRICS = HEAD % b"/metrics" + b"\r\n"


def until_taken(siege: Siege, count: int) -> None:
    """Wait until the server has accepted so many."""
    deadline = time.monotonic() + PATIENCE
    while len(siege.arena.server._web._threads.connections()) < count:  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        siege.bystander.is_served()


def test_who_only_holds_connections_keeps_nobody_out(besiege: Besiege, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "_REQUEST_SECONDS", 600.0)
    everybody = web_server._MOST_CONNECTIONS + web_server._FOR_PROBES
    with besiege(metrics_port=0, log_lines=3) as siege, many(siege, everybody, b"GET /") as socks:
        until_taken(siege, everybody)
        for _ in range(20):  # each makes the oldest leave
            assert b" 200 " in answer(siege, GET)
            assert b" 503 " in answer(siege, METRICS)
        gone = [sock for sock in socks if ended(sock)]
        assert gone == socks[: len(gone)]
        assert 0 < len(gone) <= 40
        siege.bystander.is_served()


def ended(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


def test_who_does_not_take_the_answer_keeps_no_probe_out(besiege: Besiege, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "_SEND_SECONDS", 600.0)
    monkeypatch.setattr(web_server, "_SEND_BUFFER", 4096)
    with besiege(metrics_port=0, log_lines=3) as siege:
        siege.arena.ask(b"SETRANGE", b"large", b"1000000", b"x")
        asked = HEAD % b"/api/key?key=bGFyZ2U=" + b"\r\n"
        with many(siege, web_server._MOST_CONNECTIONS, asked, receive_buffer=4096):
            until_taken(siege, web_server._MOST_CONNECTIONS)
            assert b" 200 " in answer(siege, GET)
            assert b" 503 " in answer(siege, METRICS)


def test_who_stays_after_the_answer_keeps_no_probe_out(besiege: Besiege, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "_LINGER_SECONDS", 600.0)
    everybody = web_server._MOST_CONNECTIONS + web_server._FOR_PROBES
    with besiege(metrics_port=0, log_lines=3) as siege, many(siege, everybody, METRICS) as socks:
        for sock in socks:
            assert read_all(sock)  # to its end: from here on only the client keeps it open
        for _ in range(20):
            assert b" 200 " in answer(siege, GET)


def test_more_connections_than_it_takes(besiege: Besiege, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "_REQUEST_SECONDS", 600.0)
    most = web_server._MOST_CONNECTIONS + web_server._FOR_PROBES
    with besiege(metrics_port=0, log_lines=3) as siege:
        with many(siege, 150, b"GET /") as socks:
            for sock in socks[: 150 - most]:  # the oldest have to go
                assert read_all(sock) == b""
            deadline = time.monotonic() + PATIENCE
            while len(siege.arena.server._web._threads.connections()) > most:  # type: ignore[union-attr]
                assert time.monotonic() < deadline  # the threads of the last that had to go are about to end
            assert not any(ended(sock) for sock in socks[-most:])
            assert b" 200 " in answer(siege, GET)
        assert b" 200 " in answer(siege, GET)


def test_they_leave_in_every_state(besiege: Besiege) -> None:
    with besiege(metrics_port=0, log_lines=4) as siege:
        for data in (b"", b"GET", HEAD % b"/", GET, LIVE, HEAD % b"/metrics" + b"\r\n", GET + GET):
            for leave in (socket.socket.close, reset):
                sock = connect(siege)
                sock.sendall(data)
                leave(sock)
        siege.bystander.is_served()
        assert b" 200 " in answer(siege, GET)


def test_one_request_a_connection(besiege: Besiege) -> None:
    with besiege(metrics_port=0) as siege:
        assert answer(siege, GET * 100).count(b"HTTP/1.1") == 1


def test_http_on_the_port_of_resp(besiege: Besiege) -> None:
    with besiege(metrics_port=0) as siege:
        assert siege.arena.answer(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nFLUSHALL\r\n") == b""
