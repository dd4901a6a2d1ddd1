"""TLS as its users meet it: clients that verify, client certificates, versions, settings that will not do."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis
from authorities import Authority, Identity
from support import need
from tls.conftest import TLSServer

import kvclient
import kvserver
from kvserver.config import ConfigError

PATIENCE = 30


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    return context.wrap_socket(sock, server_hostname="127.0.0.1")


def read_after_ping(port: int, context: ssl.SSLContext) -> None:
    with connect(port, context) as sock:
        sock.sendall(b"PING\r\n")
        if not sock.recv(100):
            raise ConnectionAbortedError


def url(server: kvserver.Server, authority: Authority) -> str:
    return f"{server.url}?tls_ca={authority.file}"


# Clients


def test_redis_py(tls_server: TLSServer, authority: Authority) -> None:
    with tls_server() as server:
        assert server.url == f"rediss://127.0.0.1:{server.tls_port}"
        with redis.Redis.from_url(server.url, ssl_ca_certs=authority.file) as client:
            assert client.set("k", "v")
            assert client.get("k") == b"v"
            with client.pipeline(transaction=True) as pipeline:
                for i in range(1000):
                    pipeline.set(f"k{i}", "v" * i)
                assert pipeline.execute() == [True] * 1000


def test_redis_cli(tls_server: TLSServer, authority: Authority) -> None:
    with tls_server() as server:
        command = [need("redis-cli"), "-p", str(server.tls_port), "--tls", "--cacert", authority.file, "PING"]
        assert subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout == "PONG\n"


def test_kvclient(tls_server: TLSServer, authority: Authority) -> None:
    with tls_server() as server, kvclient.connect(url(server, authority)) as kv:
        kv.set("k", b"v" * 1_000_000)
        assert kv.get("k") == b"v" * 1_000_000


def test_kvclient_on_the_command_line(tls_server: TLSServer, authority: Authority) -> None:
    with tls_server() as server:
        command = [sys.executable, "-m", "kvclient", url(server, authority), "PING"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.stdout.strip() == "PONG", done.stderr


def test_kvclient_verifies_by_default(tls_server: TLSServer) -> None:
    with (
        tls_server() as server,
        pytest.raises(kvclient.errors.CannotConnectError, match=r"its certificate is not accepted: .* with tls_ca="),
    ):
        kvclient.connect(server.url)


def test_kvclient_verifies_the_name(tls_server: TLSServer, authority: Authority) -> None:
    other = authority.issue("elsewhere.example")
    with (
        tls_server(tls_cert=other.cert, tls_key=other.key) as server,
        pytest.raises(kvclient.errors.CannotConnectError, match="IP address mismatch"),
    ):
        kvclient.connect(url(server, authority))


def test_kvclient_verifies_nothing_when_told_so(tls_server: TLSServer) -> None:
    with tls_server() as server, kvclient.connect(f"{server.url}?tls_verify=no") as kv:
        assert kv.ping()


def test_kvclient_says_so_when_the_server_does_not_speak_tls(authority: Authority) -> None:
    with (
        kvserver.Server(port=0) as server,
        pytest.raises(kvclient.errors.CannotConnectError, match="does the server speak TLS on that port"),
    ):
        kvclient.connect(server.url.replace("redis:", "rediss:"))


def test_kvclient_keeps_its_deadline(authority: Authority, identity: Identity) -> None:
    """A server that greets and then says nothing: the deadline passes all the same, with TLS too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with context.wrap_socket(sock, server_side=True):
                done.wait(PATIENCE)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"rediss://127.0.0.1:{listener.getsockname()[1]}?tls_ca={authority.file}&timeout=0.5"
        try:
            with pytest.raises(kvclient.errors.CannotConnectError, match=r"timed out|did not reply in time"):
                kvclient.connect(address)
            assert not done.is_set()
        finally:
            done.set()
            thread.join()


# Client certificates


@pytest.mark.parametrize(
    ("wanted", "shown", "is_let_in"),
    [
        ("auto", "none", False), ("auto", "ours", True), ("auto", "foreign", False),
        ("yes", "none", False), ("yes", "ours", True),
        ("optional", "none", True), ("optional", "ours", True), ("optional", "foreign", False),
        ("no", "none", True), ("no", "foreign", True),
    ],
)  # fmt: skip
def test_client_certificates(
    tls_server: TLSServer, authority: Authority, other_authority: Authority, wanted: str, shown: str, is_let_in: bool
) -> None:
    context = authority.trusting()
    if shown != "none":
        client = (authority if shown == "ours" else other_authority).issue("somebody")
        context.load_cert_chain(client.cert, client.key)
    with tls_server(tls_ca=authority.file, tls_auth_clients=wanted) as server:
        if is_let_in:
            with connect(server.tls_port, context) as sock:
                sock.sendall(b"PING\r\n")
                assert sock.recv(100) == b"+PONG\r\n"
        else:  # in TLS 1.3 the client learns of it when it first reads
            with pytest.raises(OSError):
                read_after_ping(server.tls_port, context)


def test_kvclient_shows_its_certificate(tls_server: TLSServer, authority: Authority) -> None:
    client = authority.issue("somebody")
    with tls_server(tls_ca=authority.file) as server:
        shown = f"{url(server, authority)}&tls_cert={client.cert}&tls_key={client.key}"
        with kvclient.connect(shown) as kv:
            assert kv.ping()


# Versions


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(tls_server: TLSServer, authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.trusting()
    context.minimum_version = context.maximum_version = version
    with tls_server() as server, connect(server.tls_port, context) as sock:
        assert sock.version() == version.name.replace("_", ".").replace("TLSv1", "TLSv1")
        sock.sendall(b"PING\r\nQUIT\r\n")
        assert sock.recv(100) + sock.recv(100) == b"+PONG\r\n+OK\r\n"
        assert sock.recv(100) == b""  # and not an error: the server has said that this is the end


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_are_refused(tls_server: TLSServer, authority: Authority) -> None:
    context = authority.trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with tls_server() as server, pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        connect(server.tls_port, context)


# Ports


def test_both_ports_at_once(tls_server: TLSServer, authority: Authority) -> None:
    with tls_server(port=0) as server:
        assert server.url.startswith("redis://")
        assert server.port != server.tls_port
        with redis.Redis(port=server.port) as plain, connect(server.tls_port, authority.trusting()) as sock:
            plain.set("k", "v")
            sock.sendall(b"GET k\r\n")
            assert sock.recv(100) == b"$1\r\nv\r\n"
            assert plain.config_get("port", "tls-port") == {"port": str(server.port), "tls-port": str(server.tls_port)}
            listeners = [str(value) for name, value in plain.info("server").items() if name.startswith("listener")]
            assert [("'tls'" in line or "name=tls" in line) for line in listeners].count(True) >= 1


def test_a_unix_socket_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with kvserver.Server(port=None, unix_socket=path) as server:
        assert (server.port, server.tls_port, server.url) == (0, 0, f"unix://{path}")
        with redis.Redis(unix_socket_path=path) as client:
            assert client.ping()


# Settings that will not do


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tls_cert": "", "tls_key": ""}, "--tls-port: a certificate is needed; name its file with --tls-cert"),
        ({"tls_cert": "missing.pem"}, "--tls-cert missing.pem with --tls-key .*: cannot be read: No such file"),
        ({"tls_key": "NOT PEM"}, "--tls-cert .*: is not in PEM format, or does not hold all that is needed"),
        ({"tls_key": "OTHER KEY"}, "the key is not the certificate's"),
        ({"tls_key": "ENCRYPTED"}, "the key is encrypted; write it without a passphrase"),
        ({"tls_auth_clients": "yes"}, "--tls-auth-clients yes: whom to trust is not said; name a file with --tls-ca"),
        ({"tls_ca": "missing.pem"}, "--tls-ca missing.pem: cannot be read: No such file"),
        ({"tls_ca": "NOT PEM"}, "--tls-ca .*: is not in PEM format"),
        ({"tls_port": None}, "--port off: then there is nothing to listen on"),
    ],
)
def test_settings_that_will_not_do(
    tls_server: TLSServer, authority: Authority, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    files = {"NOT PEM": tmp_path / "not.pem", "ENCRYPTED": tmp_path / "encrypted.pem"}
    files["NOT PEM"].write_text("no\n")
    files["ENCRYPTED"].write_bytes(_encrypted(authority.issue("127.0.0.1").key))
    known = {name: str(path) for name, path in files.items()} | {"OTHER KEY": authority.issue("127.0.0.1").key}
    chosen = {name: known.get(value, value) for name, value in settings.items()}
    with pytest.raises(ConfigError, match=said), tls_server(**chosen):
        pass


def _encrypted(file: str) -> bytes:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(Path(file).read_bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_beyond_this_machine_a_password_is_needed_with_tls_too(tls_server: TLSServer) -> None:
    with pytest.raises(ConfigError, match="anybody who reaches this machine"), tls_server(host="0.0.0.0"):
        pass


# New certificates


def serial(port: int, context: ssl.SSLContext) -> str:
    with connect(port, context) as sock:
        shown = sock.getpeercert()
        assert shown
        return str(shown["serialNumber"])


def test_new_certificates_on_sighup(authority: Authority, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def install(identity: Identity) -> None:
        cert.write_bytes(Path(identity.cert).read_bytes())
        key.write_bytes(Path(identity.key).read_bytes())

    install(authority.issue("127.0.0.1"))
    command = [sys.executable, "-m", "kvserver", "--port", "off", "--tls-port", "0", "--tls-cert", str(cert)]
    process = subprocess.Popen(
        [*command, "--tls-key", str(key)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        context = authority.trusting()
        with connect(port, context) as before:
            first = serial(port, context)
            install(authority.issue("127.0.0.1"))
            process.send_signal(signal.SIGHUP)
            assert _logged(process, "tls.certificates_reloaded")
            second = serial(port, context)
            assert second != first
            cert.write_text("spoilt")
            process.send_signal(signal.SIGHUP)
            line = _logged(process, "tls.certificates_not_reloaded")
            assert "is not in PEM format" in line
            assert serial(port, context) == second
            before.sendall(b"PING\r\n")
            assert before.recv(100) == b"+PONG\r\n"
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def _logged(process: subprocess.Popen[str], event: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if event in line:
            return line
    return ""
