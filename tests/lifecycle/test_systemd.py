"""Under a service manager: readiness is told, sockets are taken over, the log's file is begun anew."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lifecycle.test_command_line import command, environment
from support import need

import kvserver
from kvserver import systemd
from kvserver.config import ConfigError

UNITS = Path(__file__).parents[2] / "docs" / "operations"
needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Unix sockets only")


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """Where a service manager hears from its services."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.settimeout(30)
        heard.bind(address)
        yield heard


@contextmanager
def running(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("--port", "0", *arguments),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**variables),
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


@needs_unix
@pytest.mark.parametrize("place", ["path", "abstract"])
def test_it_tells_what_becomes_of_it(place: str, tmp_path: Path) -> None:
    if place == "abstract" and sys.platform != "linux":
        pytest.skip("Linux only")
    address = str(tmp_path / "notify") if place == "path" else f"\0kvserver-test-{os.getpid()}"
    told = address.replace("\0", "@")
    with manager(address) as heard, running("--data-dir", str(tmp_path / "data"), NOTIFY_SOCKET=told) as process:
        while not (message := heard.recv(1000)).startswith(b"READY=1"):
            assert message.startswith(b"EXTEND_TIMEOUT_USEC=")
        assert b"STATUS=Serving on 127.0.0.1:" in message
        process.send_signal(signal.SIGHUP)
        assert heard.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert heard.recv(1000) == b"READY=1"
        process.send_signal(signal.SIGTERM)
        assert heard.recv(1000) == b"STOPPING=1"
        assert process.wait(30) == 0


@needs_unix
def test_loading_is_told_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with manager(address) as heard:
        loading = systemd.Loading()
        for done in range(1000):
            loading(done, 1000)
        assert heard.recv(1000) == b"EXTEND_TIMEOUT_USEC=60000000\nSTATUS=Loading, 0 %"
        heard.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard.recv(1000)


def test_without_a_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.notify("READY=1")


def test_systemd_listens_for_us() -> None:
    program = need("systemd-socket-activate")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [program, "-l", f"127.0.0.1:{port}", *command("--port", "1")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stdout is not None
    with process:
        try:
            assert "Listening on" in process.stderr.readline()
            with socket.create_connection(("127.0.0.1", port), 30) as sock:
                sock.sendall(b"PING\r\n")
                assert sock.recv(100) == b"+PONG\r\n"  # who came before the server was there is served
            assert process.stdout.readline() == f"Ready to accept connections on 127.0.0.1:{port}\n"
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_sockets_by_name(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with (
        socket.create_server(("127.0.0.1", 0)) as http,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(path)
        unix.listen()
        server = kvserver.Server(port=1)
        server.start(sockets=[("", unix.dup()), ("metrics", http.dup())])
        try:
            assert server.addresses == (path,)
            assert server.metrics_port == http.getsockname()[1]
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(path)
                client.sendall(b"PING\r\n")
                assert client.recv(100) == b"+PONG\r\n"
        finally:
            server.stop()
        assert Path(path).exists()  # it is the service manager's


def test_a_socket_that_does_not_listen() -> None:
    with socket.socket() as idle, pytest.raises(ConfigError, match="ListenStream="):
        kvserver.Server(port=0).start(sockets=[("resp", idle)])


def test_a_descriptor_that_is_no_socket(tmp_path: Path) -> None:
    """As when something else than systemd sets the variables: one line, and no traceback."""
    begin = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.executable, sys.argv[1:])"
    with (tmp_path / "file").open("w") as file:
        process = subprocess.run(
            [sys.executable, "-c", f"import os; os.dup2({file.fileno()}, 3); {begin}", *command("--port", "0")],
            capture_output=True, text=True, timeout=60, check=False, pass_fds=[file.fileno()],
            env=environment() | {"LISTEN_FDS": "1"},
        )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.startswith("kvserver: LISTEN_FDS announces 1 sockets, but descriptor 3 is none")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("variables", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "x"}])
def test_sockets_of_somebody_else(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert systemd.inherited_sockets() == []
    assert "LISTEN_FDS" not in os.environ


@pytest.mark.parametrize("unit", ["kvserver.service", "kvserver.socket"])
def test_the_units_are_accepted_by_systemd(unit: str, tmp_path: Path) -> None:
    program = need("systemd-analyze")
    for each in ("kvserver.service", "kvserver.socket"):
        text = (UNITS / each).read_text(encoding="utf-8").replace("/opt/kvserver/bin/kvserver", sys.executable)
        (tmp_path / each).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in done.stderr.splitlines() if "kvserver." in line] == []


def test_the_log_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "kvserver.log"
    with running("--log-file", str(log), "--log-format", "json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        while "server.ready" not in log.read_text():
            pass
        log.rename(tmp_path / "kvserver.log.1")
        process.send_signal(signal.SIGHUP)
        while not log.exists():
            pass
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert errors == ""
    assert "server.stopping" in log.read_text()
    assert "server.stopping" not in (tmp_path / "kvserver.log.1").read_text()


def test_a_log_that_cannot_be_begun_anew(tmp_path: Path) -> None:
    """The lines go on where they went."""
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "kvserver.log"
    with running("--log-file", str(log)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        folder.rename(tmp_path / "away")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert "server.stopping" in (tmp_path / "away" / "kvserver.log").read_text()


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--log-file", str(tmp_path / "no" / "log")), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--log-file" in done.stderr


def test_logrotate_accepts_its_file(tmp_path: Path) -> None:
    program = shutil.which("logrotate", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or need("logrotate")
    file = tmp_path / "kvserver"
    file.write_bytes((UNITS / "kvserver.logrotate").read_bytes())
    file.chmod(0o644)
    done = subprocess.run([program, "--debug", str(file)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0
    assert "error" not in done.stderr.lower()
