"""Structured logs on standard error, by structlog.

Events are named with a dotted noun and verb (``server.ready``). No key, value, password or raw client byte is ever a
field; what a client sent is described, not quoted.

Nothing here is configured when kvserver is imported: an embedding program keeps its own structlog set-up, and only
the command line calls :func:`configure`.
"""

from __future__ import annotations

import logging
import sys
from typing import Protocol, cast

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
    return cast("Logger", structlog.stdlib.get_logger("kvserver"))


def configure(level: str, style: str) -> None:
    """Set structlog up for the command line: ``level`` as in the settings, ``style`` ``console`` or ``json``."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
