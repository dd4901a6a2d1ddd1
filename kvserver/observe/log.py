"""Structured logs, by structlog.

Events are named with a dotted noun and verb (``server.ready``). No key, value, password or raw client byte is ever a
field; what a client sent is described, not quoted. What strangers can cause is logged once a minute, however often they
cause it, so that nobody fills a disk.

structlog's own global configuration is never touched: it belongs to the embedding program. There, events go to the
standard library's logger ``kvserver``, as those of any library do; the command line sends them to standard error or to
a file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol, TextIO, cast

import structlog


class Logger(Protocol):
    """The few methods the server uses."""

    def debug(self, event: str, /, **fields: object) -> object:
        """Only of interest when something is being looked for."""

    def info(self, event: str, /, **fields: object) -> object:
        """The server's own life: started, stopping."""

    def warning(self, event: str, /, **fields: object) -> object:
        """Something was refused or cut off; the server is fine."""

    def error(self, event: str, /, **fields: object) -> object:
        """A defect, or the machine failing the server."""


class RateLimit:
    """A structlog processor that lets each event of some kinds through once in a while.

    The next one that comes through says in ``left_out`` how many did not.

    Args:
        kinds: the first words of the events that are limited.
        seconds: how long an event is left out after it was logged.
        clock: monotonic seconds; tests give their own.
    """

    def __init__(self, kinds: set[str], seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._kinds, self._seconds, self._clock = kinds, seconds, clock
        self._lock = threading.Lock()
        self._logged: dict[str, tuple[float, int]] = {}  # by event: when it was, and how many have been left out since

    def __call__(self, _logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Pass the event on, or drop it."""
        name = str(event["event"])
        if name.partition(".")[0] not in self._kinds:
            return event
        now = self._clock()
        with self._lock:
            before, left_out = self._logged.get(name, (now - self._seconds, 0))
            if now - before < self._seconds:
                self._logged[name] = before, left_out + 1
                raise structlog.DropEvent
            self._logged[name] = now, 0
        return {**event, "left_out": left_out} if left_out else event

    def forget(self) -> None:
        """Let every event through once more."""
        with self._lock:
            self._logged.clear()


rate_limit = RateLimit({"accept", "command", "connection", "web"})
"""The limit in force: events of connections, which are as many as their clients wish."""


def get_logger() -> Logger:
    """The server's logger."""
    return _logger


def configure(level: str, style: str, file: LogFile | None = None) -> None:
    """Log to standard error or a file. For the command line.

    Args:
        level: as in the settings.
        style: ``console`` or ``json``.
        file: where to; None for standard error.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=file is None and sys.stderr.isatty())
    )
    global _logger
    _logger = _wrapped(
        structlog.WriteLogger(cast("TextIO", file or _StandardError())),
        structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        rate_limit,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        renderer,
    )


class LogFile:
    """A file of log lines, that another program may move away and have begun anew.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o640)

    def reopen(self) -> None:
        """Write to the file that now has this name, or a new one.

        The new file takes the place of the old descriptor, so that threads that are just logging need not be waited
        for: each line goes to the one or the other, whole.

        Raises:
            OSError: it cannot be written; lines go on where they went.
        """
        new = self._open()
        try:
            os.dup2(new, self._descriptor, inheritable=False)
        finally:
            os.close(new)

    def write(self, text: str) -> None:
        """Append a line. One that cannot be written is lost."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Nothing is kept back."""


class _StandardError:
    """Standard error, where a line that cannot be written is lost: the log must not end the thread that logs."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def _wrapped(sink: object, kind: type, *processors: structlog.typing.Processor) -> Logger:
    return cast("Logger", structlog.wrap_logger(sink, processors=processors, wrapper_class=kind))


_logger = _wrapped(
    logging.getLogger("kvserver"),
    structlog.stdlib.BoundLogger,
    structlog.stdlib.filter_by_level,
    rate_limit,
    structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0),
)
