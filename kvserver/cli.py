"""The command line: settings from flags, environment and file; signals; the one place that starts a server for good.

Exit status: 0 after an orderly stop, 1 when forced, 2 for anything wrong with how it was started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kvserver import config, systemd
from kvserver.build import is_compiled
from kvserver.config import ConfigError
from kvserver.journal import tools
from kvserver.observe.log import LogFile, configure, get_logger
from kvserver.server import Server
from kvserver.stubs import stubs
from kvserver.threads import has_gil
from kvserver.version import __version__

_HTTP_DESCRIPTORS = 80
"""For the HTTP port: its 64 connections, its listeners, and some on their way."""
_OTHER_DESCRIPTORS = 32
"""Open files that are not connections: standard streams, listeners, what the interpreter keeps."""
_M_ARENA_MAX = -8
"""mallopt(3): how many heaps there may be."""
_EPILOG = (
    "Each option can also be set by an environment variable, KVSERVER_PORT for --port and so on, or in a TOML file "
    "given by --config. Options win over the environment, the environment over the file.  "
    "kvserver check DIR looks at a data directory, kvserver repair DIR cuts off what a bad disk has damaged, "
    "kvserver backup DIR TARGET copies one, also from a running server."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. Try {self.prog} --help.\n")


def parser() -> argparse.ArgumentParser:
    """The flags, made from the table of settings."""
    result = _Parser(
        prog="kvserver",
        description="A key-value server that any Redis client can talk to.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    result.add_argument("--version", action="version", version=_version())
    result.add_argument("--config", metavar="FILE", help="Read settings from this TOML file.")
    for option in config.OPTIONS:
        default = option.kind.show(option.default) or "none"
        result.add_argument(
            option.flag,
            dest=option.name,
            metavar=option.kind.metavar,
            help=f"{option.summary} [{default}]".replace("%", "%%"),
        )
    return result


def _version() -> str:
    return f"kvserver {__version__}{', compiled' if is_compiled() else ''}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until a signal ends it, or a tool on a data directory; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _TOOLS:
        return _tool(*arguments)
    given = vars(parser().parse_args(arguments))
    file = given.pop("config")
    try:
        settings = config.load({name: text for name, text in given.items() if text is not None}, file=file)
        log_file = _log_file(settings.log_file)
        configure(settings.log_level, settings.log_format, log_file)
        _allow_descriptors(settings.maxclients, 0 if settings.metrics_port is None else _HTTP_DESCRIPTORS)
        _share_one_heap()
        server = Server(settings)
        signals = Signals()
        if settings.tls_cert or log_file is not None or systemd.is_told():  # before the data is loaded
            signals.on_hang_up(partial(_reload, server, log_file))
        progress = _Bar() if sys.stderr.isatty() else systemd.Loading()
        server.start(progress=progress, on_end=signals.end, sockets=systemd.inherited_sockets())
    except ConfigError as error:
        print(f"kvserver: {error}", file=sys.stderr)  # noqa: T201 - before there is a log
        return 2
    return _serve(server, signals, settings.data_dir or str(settings.backend) or "in memory only")


def _log_file(path: str) -> LogFile | None:
    try:
        return LogFile(path) if path else None
    except OSError as error:
        raise ConfigError(f"--log-file {path}: cannot be written: {error.strerror}.") from None


_TOOLS: dict[str, tuple[Callable[..., int], int, str]] = {
    "check": (tools.check, 1, "DIR"),
    "repair": (tools.repair, 1, "DIR"),
    "backup": (tools.backup, 2, "DIR TARGET"),
    "stubs": (stubs, 1, "MODULE"),
}
"""What to call, with how many words, and what they are."""


def _tool(name: str, *words: str) -> int:
    call, count, usage = _TOOLS[name]
    if len(words) != count or any(word.startswith("-") for word in words):
        print(f"kvserver {name} {usage}: {(call.__doc__ or '').splitlines()[0]}", file=sys.stderr)  # noqa: T201
        return 0 if words[:1] in (("--help",), ("-h",)) else 2
    return call(*words, _say)


def _serve(server: Server, signals: Signals, data: str) -> int:
    log = get_logger()
    log.info("server.ready", addresses=server.addresses, process=os.getpid(), version=__version__, data=data)
    _say(f"Ready to accept connections on {server.addresses[0]}")
    if server.metrics_url:
        log.info("server.live_page", url=server.metrics_url)
    systemd.notify("READY=1", f"STATUS=Serving on {', '.join(server.addresses)}")
    signals.wait()
    systemd.notify("STOPPING=1")
    log.info("server.stopping", addresses=server.addresses)
    if not server.stop():
        os._exit(1)  # a command that will not end holds its thread, or the disk takes no more; the log has said so
    return 0


def _reload(server: Server, log_file: LogFile | None) -> None:
    """SIGHUP: begin the log's file anew, and read the certificates again."""
    systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    if log_file is not None:
        try:
            log_file.reopen()
        except OSError as error:
            get_logger().error("log.not_reopened", error=error.strerror)
    try:
        server.reload_certificates()
    except ConfigError as error:
        get_logger().error("tls.certificates_not_reloaded", error=str(error))
    systemd.notify("READY=1")


class _Bar:
    """How much of the data has been loaded, on a terminal."""

    def __init__(self) -> None:
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // max(1, total)
        if percent != self._shown:
            self._shown = percent
            bar = "#" * (percent // 4)
            end = "\n" if percent == 100 else ""
            print(f"\rLoading [{bar:25}] {percent:3} %", end=end, file=sys.stderr, flush=True)  # noqa: T201


def _say(line: str) -> None:
    """Tell whoever started us, if they still listen."""
    try:
        print(line, flush=True)  # noqa: T201 - standard output is for them
    except OSError:
        # What is left in the buffer would fail again, loudly, when the interpreter ends.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process


def _allow_descriptors(clients: int, others: int) -> None:
    """Raise the limit of open files as far as ``clients`` connections and others need and the system lets us."""
    if sys.platform == "win32":
        return
    import resource

    wanted = clients + others + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < ceiling:
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
    if ceiling < wanted:
        get_logger().warning("server.few_descriptors", open_files=ceiling, maxclients=clients)


def _share_one_heap() -> None:
    """Let all threads allocate from one heap, where the C library is glibc. Before any other thread runs.

    By default it makes up to eight a CPU, so that threads do not wait for each other; those of Python do anyway, and
    each heap keeps what it once needed, which under scripts/soak.py was half of the memory in use.
    """
    if has_gil() and sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


class Signals:
    """SIGTERM and SIGINT: the first ends :meth:`wait`, the second ends the process at once. SIGHUP, if wanted: call it.

    The interpreter writes a byte to a socket when a signal arrives. A handler that set an Event instead could run
    while this very thread holds the Event's lock, and wait for itself.
    """

    def __init__(self) -> None:
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._count = 0
        self._hang_ups = 0
        self._on_hang_up: Callable[[], object] = lambda: None
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def on_hang_up(self, call: Callable[[], object]) -> None:
        """Have :meth:`wait` call this at each SIGHUP, which otherwise ends the process."""
        self._on_hang_up = call
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._note_hang_up)

    def wait(self) -> None:
        """Until the first signal to end."""
        while not self._count:
            self._woken.recv(1)
            if self._hang_ups:
                self._hang_ups = 0
                self._on_hang_up()

    def _note_hang_up(self, _number: int, _frame: FrameType | None) -> None:
        self._hang_ups += 1

    def end(self) -> None:
        """End :meth:`wait`, from any thread, as the first signal would."""
        self._count += 1
        with contextlib.suppress(OSError):  # the socket is full of wake-ups
            self._wake.send(b"\0")

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            os._exit(1)
