"""Kinds of settings: how the text of each is read, checked and shown. The settings are in ``settings.py``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class ConfigError(ValueError):
    """A setting cannot be used; the text says which, why, and what would do."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a setting's text is read and written. ``parse`` raises ValueError with what is accepted."""

    metavar: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    bounds: tuple[int, int] | None = None
    """Of a number: the least and the greatest value, so that CONFIG SET can tell what is wrong with another."""
    number: Callable[[str], int] = int
    """Of a number: how it is read before the bounds are applied."""


def _whole_number(text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text) or abs(int(text)) >= 2**63:
        raise ValueError("a whole number")
    return int(text)


def bounded(metavar: str, low: int, high: int) -> Kind:
    """A number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not _WHOLE_NUMBER.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return Kind(metavar, parse, bounds=(low, high), number=_whole_number)


_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}


def _size(text: str) -> int:
    digits = text.rstrip("bBkKmMgG")
    unit = _UNITS.get(text[len(digits) :].lower())
    if unit is None or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise ValueError("bytes, as 1048576, 1024kb or 1mb")
    return int(digits) * unit


def size_of_at_least(low: int) -> Kind:
    """A number of bytes, with or without a unit."""

    def parse(text: str) -> int:
        size = _size(text)
        if size < low:
            raise ValueError(f"at least {low} bytes")
        return size

    return Kind("BYTES", parse, bounds=(low, 2**63 - 1), number=_size)


def choice(*choices: str) -> Kind:
    """One of some words."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text.lower()

    return Kind("|".join(choices), parse)


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(text.replace(",", " ").split())
    if not hosts:
        raise ValueError("one or more host names or addresses, separated by commas")
    return hosts


_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.replace(",", " ").lower().split())
    if not all(map(_NAME.fullmatch, names)):
        raise ValueError("host names, separated by commas")
    return names


def _port() -> Kind:
    def parse(text: str) -> int | None:
        if text.lower() == "off":
            return None
        if not _WHOLE_NUMBER.fullmatch(text) or not 0 <= int(text) <= 65535:
            raise ValueError("a whole number from 0 to 65535, or off")
        return int(text)

    return Kind("PORT", parse, lambda port: "off" if port is None else str(port))


@dataclass(frozen=True, slots=True)
class Password:
    """A password, kept as its SHA-256 in hexadecimal only, and never shown; empty for none."""

    sha256: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.sha256)


def hash_password(text: str) -> Password:
    """The password that a text is; none for an empty one."""
    return Password(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() if text else "")


def _show_password(password: Password) -> str:
    return "(hidden)" if password else ""


@dataclass(frozen=True, slots=True)
class ServerURL:
    """Where another server is, perhaps with the password to give there, which is never shown; empty for none."""

    text: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.text)

    def __str__(self) -> str:
        """As it may be shown: without the password."""
        scheme, _, rest = self.text.partition("://")
        user, at, place = rest.rpartition("@")
        return f"{scheme}://{user.partition(':')[0]}:(hidden)@{place}" if at else self.text


def _server_url(text: str) -> ServerURL:
    if text and "://" not in text:
        raise ValueError("a URL such as valkey+cluster://HOST:PORT,HOST:PORT")
    return ServerURL(text)


@dataclass(frozen=True, slots=True)
class OutputLimit:
    """How many bytes may wait for a client before it is closed: ``hard`` at once, ``soft`` for ``seconds``; 0: any."""

    hard: int = 0
    soft: int = 0
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """A limit a class of clients. Only ``pubsub`` has anything to limit: others are held back by their own socket."""

    normal: OutputLimit = OutputLimit()
    slave: OutputLimit = OutputLimit(256 * 1024**2, 64 * 1024**2, 60)
    pubsub: OutputLimit = OutputLimit(32 * 1024**2, 8 * 1024**2, 60)


def _output_limits(text: str) -> OutputLimits:
    words = text.split()
    given: dict[str, OutputLimit] = {}
    if not words or len(words) % 4:
        raise ValueError("a class of clients, its hard limit, soft limit and seconds, for example pubsub 32mb 8mb 60")
    for name, hard, soft, seconds in zip(*[iter(words)] * 4, strict=True):
        if name not in ("normal", "slave", "replica", "pubsub"):
            raise ValueError("one of the classes normal, replica, pubsub")
        given[name.replace("replica", "slave")] = OutputLimit(_size(hard), _size(soft), _size(seconds))
    return OutputLimits(**given)


def _show_output_limits(limits: OutputLimits) -> str:
    return " ".join(
        f"{name} {limit.hard} {limit.soft} {limit.seconds}"
        for name, limit in (("normal", limits.normal), ("slave", limits.slave), ("pubsub", limits.pubsub))
    )


_EVENTS_OF_A = "g$lshzxetd"


def _event_classes(text: str) -> str:
    """``notify-keyspace-events`` in the one form it is shown in: ``A`` for all it stands for, a fixed order.

    Unlike Valkey this shows ``n`` beside ``A``, so that the text shown means what was set.
    """
    if set(text) - set("A" + _EVENTS_OF_A + "nKEm"):
        raise ValueError("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
    wanted = set(text) | (set(_EVENTS_OF_A) if "A" in text else set())
    return "".join(letter for letter in _EVENTS_OF_A + "nKEm" if letter in wanted).replace(_EVENTS_OF_A, "A")


POLICIES = (
    "noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random",
    "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
)  # fmt: skip
"""What goes when memory is short; the words before and after the hyphen are told apart in ``store/eviction.py``."""
PORT = _port()
SIZE = size_of_at_least(1024**2)
SECONDS = bounded("SECONDS", 0, 2**31 - 1)
PATH = Kind("PATH", str)
HOSTS = Kind("HOST[,HOST...]", _hosts, " ".join)
NAMES = Kind("NAME[,NAME...]", _names, " ".join)
PASSWORD = Kind("PASSWORD", hash_password, _show_password)
SERVER_URL = Kind("URL", _server_url)
OUTPUT_LIMITS = Kind("CLASS HARD SOFT SECONDS", _output_limits, _show_output_limits)
EVENT_CLASSES = Kind("CLASSES", _event_classes)


def count(low: int, high: int) -> Kind:
    """How many of something."""
    return bounded("N", low, high)
