"""Structured logs, by structlog.

Events are named with a dotted noun and verb (``server.ready``). No key, value, password or raw client byte is ever a
field; what a client sent is described, not quoted.

structlog's own global configuration is never touched: it belongs to the embedding program. There, events go to the
standard library's logger ``kvserver``, as those of any library do; the command line sends them to standard error.
"""

from __future__ import annotations

import contextlib
import logging
import sys
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


def get_logger() -> Logger:
    """The server's logger."""
    return _logger


def configure(level: str, style: str) -> None:
    """Log to standard error: ``level`` as in the settings, ``style`` ``console`` or ``json``. For the command line."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    global _logger
    _logger = _wrapped(
        structlog.WriteLogger(cast("TextIO", _StandardError())),
        structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        renderer,
    )


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
    structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0),
)
