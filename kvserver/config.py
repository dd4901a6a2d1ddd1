"""Every setting, once: one table makes the flags, the environment, the file, CONFIG GET, the help and the docs.

A setting is a field of :class:`Config`. To add one, add the field; nothing else needs to know its name but the code
that uses it. Flags win over the environment, the environment over the file, the file over the default.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
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


def _bounded(metavar: str, low: int, high: int) -> Kind:
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


def _size_of_at_least(low: int) -> Kind:
    def parse(text: str) -> int:
        size = _size(text)
        if size < low:
            raise ValueError(f"at least {low} bytes")
        return size

    return Kind("BYTES", parse, bounds=(low, 2**63 - 1), number=_size)


def _choice(*choices: str) -> Kind:
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


@dataclass(frozen=True, slots=True)
class Password:
    """A password, kept as its SHA-256 in hexadecimal only, and never shown; empty for none."""

    sha256: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.sha256)


def _password(text: str) -> Password:
    return Password(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() if text else "")


def _show_password(password: Password) -> str:
    return "(hidden)" if password else ""


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
_PORT = _bounded("PORT", 0, 65535)
_SIZE = _size_of_at_least(1024**2)
_SECONDS = _bounded("SECONDS", 0, 2**31 - 1)
_PATH = Kind("PATH", str)
_HOSTS = Kind("HOST[,HOST...]", _hosts, " ".join)


def _count(low: int, high: int) -> Kind:
    return _bounded("N", low, high)


def _option(default: Any, kind: Kind, summary: str, *, redis: str | None = None, live: bool = False) -> Any:
    """One row: the default, how it is read, what it does, its name in CONFIG GET, whether CONFIG SET may change it."""
    return field(default=default, metadata={"kind": kind, "summary": summary, "redis": redis, "live": live})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of a server, checked. Times are in seconds and sizes in bytes unless the name says otherwise."""

    host: tuple[str, ...] = _option(
        ("127.0.0.1", "::1"),
        _HOSTS,
        "Addresses to listen on. The default is this machine only.",
        redis="bind",
    )
    port: int = _option(6379, _PORT, "TCP port; 0 takes a free one.", redis="port")
    unix_socket: str = _option("", _PATH, "Listen on this Unix socket too.", redis="unixsocket")
    requirepass: Password = _option(
        Password(),
        Kind("PASSWORD", _password, _show_password),
        "The password that clients must give. Other users of the machine can see it among the processes: rather use "
        "the environment variable, or --password-file.",
        redis="requirepass",
        live=True,
    )
    password_file: str = _option("", _PATH, "Read the password that clients must give from this file.")
    acl_file: str = _option(
        "",
        _PATH,
        "Read users and what each may do from this file, a line a user as ACL LIST shows them; ACL SAVE writes it.",
        redis="aclfile",
    )
    acllog_max_len: int = _option(
        128, _count(0, 1_000_000), "How many denials ACL LOG keeps.", redis="acllog-max-len", live=True
    )
    protected_mode: str = _option(
        "yes",
        _choice("yes", "no"),
        "Do not listen beyond this machine without a password.",
        redis="protected-mode",
    )
    maxmemory: int = _option(
        0,
        _size_of_at_least(0),
        "How much the data may take up; 0 for any amount. It counts keys, values and the tables they are in, and not "
        "the interpreter (some 25 MB) or what waits for clients.",
        redis="maxmemory",
        live=True,
    )
    maxmemory_policy: str = _option(
        "noeviction",
        _choice(*POLICIES),
        "What goes when the data is larger: nothing, and commands that need more are refused; or the least recently "
        "used, the least frequently used or random keys, of all or only of those with a deadline; or the nearest "
        "deadlines.",
        redis="maxmemory-policy",
        live=True,
    )
    databases: int = _option(16, _count(1, 10_000), "Number of databases for SELECT.", redis="databases")
    maxclients: int = _option(
        10_000,
        _count(1, 1_000_000),
        "Connections at a time; more are refused.",
        redis="maxclients",
        live=True,
    )
    log_level: str = _option(
        "info",
        _choice("debug", "info", "warning", "error"),
        "What to log, on standard error.",
        redis="loglevel",
    )
    log_format: str = _option("console", _choice("console", "json"), "How log lines look: for people, or for machines.")
    request_timeout: int = _option(
        60,
        _SECONDS,
        "Close a connection whose command has not arrived whole after this time; 0 waits.",
        live=True,
    )
    write_timeout: int = _option(
        60, _SECONDS, "Close a connection that takes no reply bytes for this time; 0 waits.", live=True
    )
    tcp_keepalive: int = _option(
        300,
        _SECONDS,
        "Probe idle TCP connections after this time; 0 does not.",
        redis="tcp-keepalive",
        live=True,
    )
    tcp_backlog: int = _option(511, _count(1, 65_535), "Connections waiting to be accepted.", redis="tcp-backlog")
    pin_threads: str = _option(
        "auto",
        _choice("auto", "yes", "no"),
        "Run all connection threads on one CPU. Faster under a global interpreter lock, which lets only one of them "
        "run anyway; auto does so where there is such a lock and the system allows it.",
    )
    max_bulk_length: int = _option(
        512 * 1024**2, _SIZE, "The longest argument or value.", redis="proto-max-bulk-len", live=True
    )
    max_command_length: int = _option(
        1024**3,
        _SIZE,
        "The longest command, all arguments together.",
        redis="client-query-buffer-limit",
        live=True,
    )
    client_output_buffer_limit: OutputLimits = _option(
        OutputLimits(),
        Kind("CLASS HARD SOFT SECONDS", _output_limits, _show_output_limits),
        "How much may wait for a subscriber that reads slowly: a hard limit, and one for so many seconds.",
        redis="client-output-buffer-limit",
        live=True,
    )
    notify_keyspace_events: str = _option(
        "",
        Kind("CLASSES", _event_classes),
        "Which changes to keys are published: K, E and letters of the classes of events, or A for nearly all; "
        "empty for none.",
        redis="notify-keyspace-events",
        live=True,
    )
    tracking_table_max_keys: int = _option(
        1_000_000,
        _count(0, 2**63 - 1),
        "How many keys are remembered for clients that track what they have read; 0 for any number.",
        redis="tracking-table-max-keys",
        live=True,
    )
    slowlog_log_slower_than: int = _option(
        10_000,
        _bounded("MICROSECONDS", -1, 2**63 - 1),
        "Keep commands that took longer for SLOWLOG; 0 keeps all, -1 none.",
        redis="slowlog-log-slower-than",
        live=True,
    )
    slowlog_max_len: int = _option(
        128, _count(0, 1_000_000), "How many commands SLOWLOG keeps.", redis="slowlog-max-len", live=True
    )
    commandlog_request_larger_than: int = _option(
        1024**2,
        _bounded("BYTES", -1, 2**63 - 1),
        "Keep commands whose words together are larger for COMMANDLOG; -1 none.",
        redis="commandlog-request-larger-than",
        live=True,
    )
    commandlog_reply_larger_than: int = _option(
        1024**2,
        _bounded("BYTES", -1, 2**63 - 1),
        "Keep commands whose replies are larger for COMMANDLOG; -1 none.",
        redis="commandlog-reply-larger-than",
        live=True,
    )
    commandlog_large_request_max_len: int = _option(
        128,
        _count(0, 1_000_000),
        "How many commands COMMANDLOG keeps as large requests.",
        redis="commandlog-large-request-max-len",
        live=True,
    )
    commandlog_large_reply_max_len: int = _option(
        128,
        _count(0, 1_000_000),
        "How many commands COMMANDLOG keeps as large replies.",
        redis="commandlog-large-reply-max-len",
        live=True,
    )
    latency_monitor_threshold: int = _option(
        0,
        _bounded("MILLISECONDS", 0, 2**31 - 1),
        "Record for LATENCY when a command takes so long or longer; 0 does not.",
        redis="latency-monitor-threshold",
        live=True,
    )
    data_dir: str = _option(
        "",
        _PATH,
        "Keep the data in this directory, in files that Redis and Valkey load too. Without one it is in memory only.",
        redis="dir",
    )
    fsync: str = _option(
        "always",
        _choice("always", "everysec", "no"),
        "When a change is safe on disk: before its reply, within about a second, or when the system likes. Only with a "
        "data directory.",
        redis="appendfsync",
        live=True,
    )
    auto_aof_rewrite_percentage: int = _option(
        100,
        _bounded("PERCENT", 0, 2**31 - 1),
        "Rewrite the files when they have grown by so much since the last time; 0 does not.",
        redis="auto-aof-rewrite-percentage",
        live=True,
    )
    auto_aof_rewrite_min_size: int = _option(
        64 * 1024**2,
        _size_of_at_least(0),
        "Do not rewrite smaller files by themselves.",
        redis="auto-aof-rewrite-min-size",
        live=True,
    )
    debug_command: str = _option(
        "no",
        _choice("no", "local", "yes"),
        "Who may use DEBUG, which is for tests.",
        redis="enable-debug-command",
    )


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table, as the code that presents settings sees it."""

    name: str
    default: Any
    kind: Kind
    summary: str
    redis: str | None
    live: bool

    @property
    def flag(self) -> str:
        """For the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """For the environment."""
        return "KVSERVER_" + self.name.upper()

    @property
    def config_name(self) -> str:
        """For CONFIG GET and SET, and the file: Redis' name where Redis has the setting."""
        return self.redis or self.name.replace("_", "-")

    def parse(self, text: str, source: str) -> Any:
        """The setting's value; ``source`` names where the text was found.

        Raises:
            ConfigError: with one line that says what is accepted.
        """
        try:
            return self.kind.parse(text)
        except ValueError as error:
            raise ConfigError(f"{source}: {text[:60]!r} will not do; it takes {error}.") from error


OPTIONS: tuple[Option, ...] = tuple(
    Option(f.name, f.default, f.metadata["kind"], f.metadata["summary"], f.metadata["redis"], f.metadata["live"])
    for f in dataclasses.fields(Config)
)
_BY_FILE_NAME = {name: option for option in OPTIONS for name in (option.name.replace("_", "-"), option.config_name)}
_NOT_SETTINGS = {"KVSERVER_CONFIG"}


def load(flags: Mapping[str, str], environment: Mapping[str, str] | None = None, file: str | None = None) -> Config:
    """Settle every setting.

    Args:
        flags: option name to text, for the flags that were given.
        environment: where ``KVSERVER_*`` is looked up; the process's own by default.
        file: a TOML file; ``KVSERVER_CONFIG`` names one when this is None.

    Raises:
        ConfigError: with one line for the first thing that is wrong.
    """
    environment = os.environ if environment is None else environment
    file = file or environment.get("KVSERVER_CONFIG")
    values = _from_file(file) if file else {}
    values |= _from_environment(environment)
    by_name = {option.name: option for option in OPTIONS}
    values |= {name: by_name[name].parse(text, by_name[name].flag) for name, text in flags.items()}
    return Config(**values)


def password_of(config: Config) -> Password:
    """The password that clients must give, from wherever it is told; empty for none.

    Raises:
        ConfigError: its file cannot be read, or it is told twice.
    """
    if not config.password_file:
        return config.requirepass
    if config.requirepass:
        raise ConfigError("--password-file: there is a password in requirepass too; give one of the two.")
    try:
        text = Path(config.password_file).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(f"--password-file {config.password_file}: cannot be read: {error.strerror}.") from None
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        raise ConfigError(f"--password-file {config.password_file}: is empty; write the password into it.")
    return _password(password)


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {option.variable: option for option in OPTIONS}
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if variable in known:
            values[known[variable].name] = known[variable].parse(text, variable)
        elif variable.startswith("KVSERVER_") and variable not in _NOT_SETTINGS:
            raise ConfigError(f"{variable}: there is no such setting; kvserver --help lists them.")
    return values


def _from_file(file: str) -> dict[str, Any]:
    try:
        with Path(file).open("rb") as source:
            settings = tomllib.load(source)
    except OSError as error:
        raise ConfigError(f"--config {file}: cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # a syntax error, a wrong encoding, a number or nesting without end
        raise ConfigError(f"--config {file}: is not TOML: {str(error)[:200]}.") from None
    values: dict[str, Any] = {}
    for name, value in settings.items():
        option = _BY_FILE_NAME.get(name.replace("_", "-"))
        if option is None:
            raise ConfigError(f"--config {file}: there is no setting {name!r}; kvserver --help lists them.")
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        values[option.name] = option.parse(text, f"--config {file}: {name}")
    return values
