"""The command line, run as people run it: settings, the ready line, logs, signals, and one clear line for a mistake."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kvserver
from kvserver import cli
from kvserver.config import OPTIONS, Config, ConfigError, load

Start = Callable[..., "Running"]


class Running:
    """A server process that has said it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.ready = process.stdout.readline()
        self.port = int(self.ready.rpartition(":")[2]) if self.ready else 0

    def ask(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.sendall(command)
            return sock.recv(4096)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; the exit status and standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "kvserver", *arguments]


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KVSERVER_")} | variables


@pytest.fixture
def start() -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def starter(*arguments: str, **variables: str) -> Running:
            process = stack.enter_context(
                subprocess.Popen(
                    command("--port", "0", *arguments),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=environment(**variables),
                )
            )
            stack.callback(process.kill)
            return Running(process)

        yield starter


def refused(*arguments: str, **variables: str) -> str:
    """The one line that a start which cannot work ends with."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(**variables), timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("kvserver: ")
    return done.stderr


def test_ready_line_comes_first_and_logs_go_to_standard_error(start: Start) -> None:
    server = start()
    assert server.ready == f"Ready to accept connections on 127.0.0.1:{server.port}\n"
    assert server.ask(b"PING\r\n") == b"+PONG\r\n"
    status, errors = server.end()
    assert status == 0
    ready, stopping = errors.splitlines()
    assert "server.ready" in ready
    assert f"127.0.0.1:{server.port}" in ready
    assert "server.stopping" in stopping


def test_json_logs(start: Start) -> None:
    _, errors = start("--log-format", "json").end()
    events = [json.loads(line) for line in errors.splitlines()]
    assert [event["event"] for event in events] == ["server.ready", "server.stopping"]
    assert events[0]["addresses"][0].startswith("127.0.0.1:")


def test_log_level(start: Start) -> None:
    assert start("--log-level", "warning").end() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_with_clients_connected(start: Start, number: int) -> None:
    server = start()
    with socket.create_connection(("127.0.0.1", server.port)) as idle:
        idle.sendall(b"PING\r\n")  # what has not been accepted yet is reset
        assert idle.recv(100) == b"+PONG\r\n"
        idle.sendall(b"*1\r\n$4\r\nPI")  # half a command
        assert server.end(number)[0] == 0
        assert idle.recv(100) == b""


def test_a_command_in_progress_is_answered(start: Start) -> None:
    server = start("--debug-command", "yes")
    with socket.create_connection(("127.0.0.1", server.port)) as busy:
        busy.sendall(b"PING\r\nDEBUG SLEEP 60\r\n")
        while b"cmd=debug" not in server.ask(b"CLIENT LIST\r\n"):
            pass
        busy.sendall(b"PING\r\n" * 2)  # answered or too late; closing must not cost the replies before it
        assert server.end()[0] == 0
        replies = b"".join(iter(lambda: busy.recv(100), b""))
        assert replies.startswith(b"+PONG\r\n+OK\r\n")  # the sleep ends early, and says so


def test_one_interpreter_for_module_and_script(start: Start) -> None:
    version = subprocess.run(command("--version"), capture_output=True, text=True, check=True).stdout
    script = subprocess.run(
        [str(Path(sys.executable).with_name("kvserver")), "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert version == script
    assert version.startswith("kvserver ")


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused("--port", str(port))
    assert f"port {port} on 127.0.0.1 is in use" in line
    assert "--port 0" in line


def test_port_taken_on_ipv6_only_leaves_nothing_open() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        assert "::1 is in use" in refused("--port", str(taken.getsockname()[1]))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--no-such"], "--no-such"),
        (["--port", "70000"], "a whole number from 0 to 65535"),
        (["--port", "1_0"], "--port"),
        (["--max-bulk-length", "1tb"], "--max-bulk-length"),
        (["--log-level", "loud"], "debug, info, warning, error"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
        (["--config", "/no/such/file.toml"], "No such file"),
        (["--config", "."], "cannot be read"),
        (["--unix-socket", "/no/such/folder/socket"], "--unix-socket"),
        (["stray"], "stray"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], told: str) -> None:
    assert told in refused(*arguments)


def test_mistakes_in_the_environment() -> None:
    assert "KVSERVER_PORT" in refused(KVSERVER_PORT="many")
    assert "KVSERVER_PROT" in refused(KVSERVER_PROT="1")


@pytest.mark.parametrize(
    ("text", "told"),
    [("port = ", "is not TOML"), ("prot = 1", "no setting 'prot'"), ("port = 'x'", "port"), ("\xff", "is not TOML")],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "kvserver.toml"
    file.write_text(text, encoding="latin-1")
    assert told in refused("--config", str(file))


def test_precedence(tmp_path: Path) -> None:
    file = tmp_path / "kvserver.toml"
    file.write_text('databases = 3\nmaxclients = 30\nlog-level = "error"\nhost = ["127.0.0.1"]\n')
    variables = {"KVSERVER_MAXCLIENTS": "20", "KVSERVER_LOG_LEVEL": "warning", "KVSERVER_CONFIG": str(file)}
    config = load({"log_level": "debug"}, variables)
    assert (config.databases, config.maxclients, config.log_level) == (3, 20, "debug")
    assert config.host == ("127.0.0.1",)
    assert config.port == Config().port


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_setting_by_every_way(option: object, tmp_path: Path) -> None:
    assert isinstance(option, type(OPTIONS[0]))
    text = {"host": "127.0.0.1", "unix_socket": "/run/x"}.get(option.name) or option.kind.show(option.default)
    wanted = option.parse(text, "test")
    file = tmp_path / "kvserver.toml"
    file.write_text(f"{option.config_name} = {json.dumps(text)}\n")
    for config in (
        load({option.name: text}, {}),
        load({}, {option.variable: text}),
        load({}, {}, str(file)),
    ):
        assert getattr(config, option.name) == wanted
    with pytest.raises(ConfigError, match=option.variable):
        load({}, {option.variable: "\0"}) if option.kind.metavar not in (
            "PATH",
            "HOST[,HOST...]",
            "PASSWORD",
        ) else load({}, {option.variable + "X": "y"})


def test_help_names_every_flag() -> None:
    text = subprocess.run(command("--help"), capture_output=True, text=True, check=True).stdout
    assert all(option.flag in text for option in OPTIONS)


def test_second_signal_forces(start: Start) -> None:
    """A command that will not end: the first signal waits for it, the second does not."""
    server = start()
    code = (
        "import os, signal, socket, sys, threading\n"
        "from kvserver.commands.registry import Group, Runs, command\n"
        "from kvserver import cli\n"
        "@command('STUCK', '', group=Group.SERVER, runs=Runs.ON_SESSION, arity=1)\n"
        "def stuck(session):\n"
        "    'Never returns.'\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    threading.Event().wait()\n"
        "cli.main(['--port', '0'])\n"
    )
    server.end()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stuck = Running(process)
    with socket.create_connection(("127.0.0.1", stuck.port)) as sock:
        sock.sendall(b"STUCK\r\n")
        assert process.stderr is not None
        assert "server.ready" in process.stderr.readline()
        assert "server.stopping" in process.stderr.readline()
        status, errors = stuck.end()
    assert status == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "exa mple", "256.1.1.1"])
def test_hosts_that_are_none(host: str) -> None:
    assert "--host" in refused("--host", host)


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "port = " + "1" * 5000], ids=["deep", "long"])
def test_a_file_without_end(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kvserver.toml"
    file.write_text(text)
    assert "is not TOML" in refused("--config", str(file))


def test_nobody_reads_what_it_says() -> None:
    """Standard output and error closed at the other end: it serves, and ends with status 0."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        command("--port", str(port)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    while True:  # until it listens; the connection is refused at once before that
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"PING\r\n")
            assert sock.recv(100) == b"+PONG\r\n"
            break
    process.terminate()
    assert process.wait(20) == 0


def test_a_hang_up_while_the_data_is_loaded_ends_nothing(tmp_path: Path) -> None:
    """logrotate does not know that the server has just been started."""
    data = str(tmp_path / "data")
    with kvserver.Server(port=0, data_dir=data, fsync="no") as server:
        for start in range(0, 300_000, 1000):
            server.direct("MSET", *(word for n in range(start, start + 1000) for word in (f"key:{n}", "v")))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kvserver", "--port", str(port), "--data-dir", data, "--log-level", "error"]
    command += ["--log-file", str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        reply = b""
        while not reply:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 30) as sock:
                sock.sendall(b"PING\r\n")
                reply = sock.recv(100)
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline().startswith("Ready")
        assert reply.startswith(b"-LOADING"), "it was too quick to be met while it loads: more keys are needed"
        process.terminate()
        assert process.wait(30) == 0


def test_open_files_are_allowed_for_all_clients() -> None:
    code = (
        "import resource\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))\n"
        "from kvserver import cli\n"
        "for others in (0, 80):\n"
        "    cli._allow_descriptors(200, others)\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["232", "312"]


def test_a_data_directory(start: Start, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    first = start("--data-dir", data)
    assert first.ask(b"SET k v\r\n") == b"+OK\r\n"
    status, errors = first.end()
    assert status == 0
    assert data in errors
    second = start("--data-dir", data, "--log-format", "json")
    assert second.ask(b"GET k\r\n") == b"$1\r\nv\r\n"
    _, errors = second.end()
    events = [json.loads(line) for line in errors.splitlines()]
    assert [event["event"] for event in events] == ["data.loading", "data.loaded", "server.ready", "server.stopping"]
    assert (events[1]["keys"], events[1]["commands"]) == (1, 2)


def test_the_log_says_that_data_is_in_memory_only(start: Start) -> None:
    _, errors = start().end()
    assert errors.count("in memory only") == 1


def test_a_directory_in_use_is_one_line(start: Start, tmp_path: Path) -> None:
    start("--data-dir", str(tmp_path))
    assert "another server uses this directory" in refused("--port", "0", "--data-dir", str(tmp_path))


def test_shutdown_ends_the_process(start: Start, tmp_path: Path) -> None:
    server = start("--data-dir", str(tmp_path))
    assert server.ask(b"SHUTDOWN\r\n") == b""
    _, errors = server.process.communicate(timeout=20)
    assert server.process.returncode == 0
    assert "server.stopping" in errors


def test_progress_is_shown_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bar = cli._Bar()
    for done in range(0, 1001, 5):
        bar(done, 1000)
    shown = capsys.readouterr().err
    assert shown.startswith("\rLoading [                         ]   0 %")
    assert shown.endswith("\rLoading [#########################] 100 %\n")
    assert shown.count("\r") == 101
