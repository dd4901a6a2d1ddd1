"""Row 18 and its like: TLS where none is spoken, none where it is, and handshakes that lead nowhere."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from authorities import Authority, Identity
from hostile.conftest import Besiege
from hostile.siege import PATIENCE, Siege, read_all, request, reset
from support import need


@pytest.fixture
def besiege_tls(besiege: Besiege, authority: Authority, identity: Identity) -> Besiege:
    """A siege of a server that speaks TLS as well; its bystander does without."""

    @contextmanager
    def make(log_lines: int = 1, **settings: object) -> Iterator[Siege]:
        tls = {"tls_port": 0, "tls_cert": identity.cert, "tls_key": identity.key}
        with besiege(log_lines, **tls, **settings) as siege:
            yield siege
            with secure(siege, authority) as last:  # once it is answered, all before it have been accepted
                ask(last, b"PING\r\n", b"+PONG\r\n")

    return make


def dial(siege: Siege) -> socket.socket:
    """A connection to the port for TLS that says nothing yet."""
    return socket.create_connection(("127.0.0.1", siege.arena.server.tls_port), PATIENCE)


def secure(siege: Siege, authority: Authority) -> ssl.SSLSocket:
    return authority.trusting().wrap_socket(dial(siege), server_hostname="127.0.0.1")


def ask(sock: ssl.SSLSocket, command: bytes, reply: bytes) -> None:
    sock.sendall(command)
    received = b""
    while len(received) < len(reply):
        chunk = sock.recv(len(reply) - len(received))
        assert chunk, received
        received += chunk
    assert received == reply


def client_hello(authority: Authority) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.trusting().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def trickle(sock: socket.socket, data: bytes, seconds: float) -> None:
    for byte in data:
        sock.sendall(bytes([byte]))
        time.sleep(seconds)


def flood(sock: ssl.SSLSocket) -> None:
    for _ in range(100_000):
        sock.sendall(b"PING\r\n" * 1000)


def failures(siege: Siege) -> int:
    told = siege.arena.ask(b"INFO", b"stats").partition(b"client_tls_handshake_failures:")[2]
    return int(told.partition(b"\r\n")[0])


# One protocol in place of the other


def test_18_tls_on_the_plain_port(siege: Siege, authority: Authority) -> None:
    with siege.arena.connect() as sock, pytest.raises(ssl.SSLError):
        authority.trusting().wrap_socket(sock, server_hostname="127.0.0.1")


def test_18_tls_on_the_plain_port_byte_by_byte(siege: Siege, authority: Authority) -> None:
    with siege.arena.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in client_hello(authority)[:2]:
            sock.sendall(bytes([byte]))
        assert read_all(sock) == b"-ERR Protocol error: this port does not speak TLS\r\n"


@pytest.mark.parametrize(
    "data", [b"PING\r\n", b"*1\r\n$4\r\nPING\r\n", b"\r\n" * 20, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 100]
)
def test_18_plain_bytes_on_the_tls_port(besiege_tls: Besiege, data: bytes) -> None:
    with besiege_tls() as siege:
        with dial(siege) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert b"PONG" not in read_all(sock)
        assert failures(siege) == 1
        assert "tls_failed" in siege.log()[0]


# Handshakes that lead nowhere


def test_18_a_stalled_handshake_holds_nobody_up(besiege_tls: Besiege, authority: Authority) -> None:
    hello = client_hello(authority)
    with besiege_tls(request_timeout=2) as siege:
        stalled = [dial(siege) for _ in range(40)]
        try:
            for place, sock in enumerate(stalled):
                sock.sendall(hello[: place * len(hello) // 40])
            with secure(siege, authority) as sock:
                ask(sock, b"PING\r\n", b"+PONG\r\n")
            siege.bystander.is_served()
            for sock in stalled:
                read_all(sock)  # until the server has had enough
        finally:
            for sock in stalled:
                sock.close()
        assert failures(siege) == 40


def test_18_a_trickle_does_not_put_the_deadline_off(besiege_tls: Besiege, authority: Authority) -> None:
    with besiege_tls(request_timeout=1) as siege, dial(siege) as sock:
        hello = client_hello(authority)
        began = time.monotonic()
        with pytest.raises(OSError):
            trickle(sock, hello[:-1], seconds=0.02)
        assert time.monotonic() - began < 0.02 * len(hello) / 2


@pytest.mark.parametrize("how_much", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_18_gone_in_the_middle_of_the_handshake(
    besiege_tls: Besiege, authority: Authority, how_much: float, leave: Callable[[socket.socket], object]
) -> None:
    hello = client_hello(authority)
    with besiege_tls() as siege:
        for _ in range(30):
            sock = dial(siege)
            sock.sendall(hello[: int(how_much * len(hello))])
            leave(sock)


def test_18_a_mutated_hello(besiege_tls: Besiege, authority: Authority) -> None:
    hello = client_hello(authority)
    with besiege_tls() as siege:
        for place in range(0, len(hello), 7):
            with dial(siege) as sock:
                sock.sendall(hello[:place] + bytes([hello[place] ^ 0xFF]) + hello[place + 1 :])
                sock.shutdown(socket.SHUT_WR)
                read_all(sock)


# After the handshake


def test_half_a_record_has_the_deadline_of_half_a_command(besiege_tls: Besiege, authority: Authority) -> None:
    """OpenSSL shows nothing of a record before all of it is there: to the decoder no command has begun."""
    with besiege_tls(request_timeout=1) as siege, dial(siege) as sock:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = authority.trusting().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        done = False
        while not done:
            try:
                client.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            sock.sendall(outgoing.read())
            if not done:
                incoming.write(sock.recv(1 << 16))
        client.write(request(b"SET", b"k", b"v" * 1000))
        sock.sendall(outgoing.read()[:-1])
        read_all(sock)
        assert b"client_request_timeout_disconnections:1\r\n" in siege.arena.ask(b"INFO", b"stats")
        assert siege.arena.ask(b"EXISTS", b"k") == b":0\r\n"


def test_a_forged_record(besiege_tls: Besiege, authority: Authority) -> None:
    """What somebody else puts between the client's records is not taken for the client's."""
    with besiege_tls() as siege, secure(siege, authority) as sock:
        ask(sock, b"SET k v\r\n", b"+OK\r\n")
        with socket.socket(fileno=sock.detach()) as below:
            below.settimeout(PATIENCE)
            below.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            read_all(below)
        assert siege.arena.ask(b"GET", b"k") == b"$1\r\nv\r\n"


def test_who_never_reads_is_ended(besiege_tls: Besiege, authority: Authority) -> None:
    with besiege_tls(write_timeout=1) as siege, secure(siege, authority) as sock:
        ask(sock, request(b"SET", b"k", b"v" * 1_000_000), b"+OK\r\n")
        sock.sendall(b"GET k\r\n" * 1000)
        while b"client_write_timeout_disconnections:1\r\n" not in siege.arena.ask(b"INFO", b"stats"):
            siege.bystander.is_served()


def test_a_stranger_who_never_reads_is_ended_at_once(besiege_tls: Besiege, authority: Authority) -> None:
    with besiege_tls(write_timeout=60) as siege, secure(siege, authority):
        siege.arena.ask(b"ACL", b"SETUSER", b"default", b"resetpass", b">secret")
        with secure(siege, authority) as stranger, pytest.raises(OSError):
            flood(stranger)
        siege.bystander.is_served()
        with siege.arena.connect() as friend:
            friend.sendall(b"AUTH secret\r\nACL SETUSER default nopass\r\n")
            friend.shutdown(socket.SHUT_WR)
            assert read_all(friend) == b"+OK\r\n+OK\r\n"


@pytest.mark.parametrize("doing", [b"", b"MULTI\r\n", b"SUBSCRIBE c\r\n", b"*2\r\n$3\r\nGET\r\n$"])
def test_27_killed_in_a_read(besiege_tls: Besiege, authority: Authority, doing: bytes) -> None:
    with besiege_tls() as siege, secure(siege, authority) as sock:
        sock.sendall(b"CLIENT ID\r\n")
        number = sock.recv(100)[1:-2]
        sock.sendall(doing)
        assert siege.arena.ask(b"CLIENT", b"KILL", b"ID", number) == b":1\r\n"
        sock.settimeout(PATIENCE)
        while sock.recv(1000):
            pass


def test_a_client_that_would_negotiate_again(besiege_tls: Besiege, authority: Authority) -> None:
    """In TLS 1.2 a client could ask for that as often as it likes, and the server would have most of the work."""
    with besiege_tls() as siege:
        port = siege.arena.server.tls_port
        done = subprocess.run(
            [need("openssl"), "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port}", "-CAfile", authority.file],
            input=b"R\nPING\r\n",
            capture_output=True,
            timeout=PATIENCE,
        )
        assert b"RENEGOTIATING" in done.stdout + done.stderr
        assert b"PONG" not in done.stdout
        assert b"no renegotiation" in done.stderr.lower().replace(b"_", b" ")
