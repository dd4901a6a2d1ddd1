"""What a client tells an observer: each call, and what becomes of connections. Names and times, never keys or values.

    kvclient.connect(url, observer=LoggingObserver())

Without an observer nothing is measured. An observer is called in the thread or task of the call, so it should be quick;
what it raises goes to whoever made the call.

Not here: OpenTelemetry (telemetry.py).
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvclient.commands.base import Args
    from kvclient.url import Options

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z._]{0,31}")
PIPELINE: Final = "PIPELINE"
TRANSACTION: Final = "MULTI"


@dataclass(frozen=True, slots=True)
class CallEvent:
    """A call has ended.

    Attributes:
        command: the command's name, "PIPELINE", or "MULTI" for a transaction.
        count: how many commands it was.
        began: wall-clock nanoseconds since 1970.
        seconds: how long it took, waiting for a connection and trying again included.
        error: the name of the error's class; None if there was none.
        address: the server's.
        db: the number of the database.
    """

    command: str
    count: int
    began: int
    seconds: float
    error: str | None
    address: str
    db: int


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """Something has become of a connection.

    Attributes:
        kind: "opened"; "failed", it could not be; "lost", by an error; "closed", since it was not needed any more.
        address: the server's.
        error: the name of the error's class; None if there was none.
    """

    kind: Literal["opened", "failed", "lost", "closed"]
    address: str
    error: str | None = None


class Observer(Protocol):
    """Who is told."""

    def call(self, event: CallEvent, /) -> None:
        """A call has ended."""

    def connection(self, event: ConnectionEvent, /) -> None:
        """Something has become of a connection."""


class LoggingObserver:
    """Writes to the standard library's logging: calls as debug, connections as info, failures as warnings.

    The fields are in the message and, for structured logging, in the record's attribute `kv`.

    Args:
        logger: where to write.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("kvclient")

    def call(self, event: CallEvent, /) -> None:
        """Log a call."""
        self._logger.debug(
            "%s of %d to %s took %.6f s%s", event.command, event.count, event.address, event.seconds,
            f": {event.error}" if event.error else "", extra={"kv": event},
        )  # fmt: skip

    def connection(self, event: ConnectionEvent, /) -> None:
        """Log what has become of a connection."""
        level = logging.WARNING if event.kind in {"failed", "lost"} else logging.INFO
        error = f": {event.error}" if event.error else ""
        self._logger.log(level, "connection to %s %s%s", event.address, event.kind, error, extra={"kv": event})


def name_of(words: Args) -> str:
    """A command's name, for an event. What cannot be one, as a key in its place, is not told."""
    word = words[0]
    name = word if isinstance(word, str) else bytes(word).decode("latin-1") if isinstance(word, bytes) else ""
    return name.upper() if _NAME.fullmatch(name) else "?"


def error_of(error: BaseException | None) -> str | None:
    """An error's class, for an event. Its text may quote what was sent, and is not told."""
    return None if error is None else type(error).__name__


@contextlib.contextmanager
def told(observer: Observer | None, options: Options, name: str, count: int) -> Iterator[None]:
    """For a with block that is a call: the observer is told of it at its end."""
    if observer is None:
        yield
        return
    began, start = time.time_ns(), time.monotonic()
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        seconds = time.monotonic() - start
        observer.call(CallEvent(name, count, began, seconds, error_of(failure), options.address, options.db))
