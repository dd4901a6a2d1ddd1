"""The table of settings: their names, defaults, kinds, and what each is for.

A setting is a field of :class:`Config`. To add one, add the field; nothing else needs to know its name but the code
that uses it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from kvserver.config.kinds import (
    EVENT_CLASSES,
    HOSTS,
    NAMES,
    OUTPUT_LIMITS,
    PASSWORD,
    PATH,
    POLICIES,
    PORT,
    SECONDS,
    SERVER_URL,
    SIZE,
    ConfigError,
    Kind,
    OutputLimits,
    Password,
    ServerURL,
    bounded,
    choice,
    count,
    size_of_at_least,
)


def _option(default: Any, kind: Kind, summary: str, *, redis: str | None = None, live: bool = False) -> Any:
    """One row: the default, how it is read, what it does, its name in CONFIG GET, whether CONFIG SET may change it."""
    return field(default=default, metadata={"kind": kind, "summary": summary, "redis": redis, "live": live})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of a server, checked. Times are in seconds and sizes in bytes unless the name says otherwise."""

    host: tuple[str, ...] = _option(
        ("127.0.0.1", "::1"),
        HOSTS,
        "Addresses to listen on. The default is this machine only.",
        redis="bind",
    )
    port: int | None = _option(6379, PORT, "TCP port; 0 takes a free one, off none.", redis="port")
    unix_socket: str = _option("", PATH, "Listen on this Unix socket too.", redis="unixsocket")
    tls_port: int | None = _option(
        None, PORT, "TCP port for TLS, 1.2 or newer; 0 takes a free one, off none.", redis="tls-port"
    )
    tls_cert: str = _option(
        "", PATH, "The server's certificate in PEM format, with those between it and the CA.", redis="tls-cert-file"
    )
    tls_key: str = _option(
        "", PATH, "Its private key, in PEM format; not needed if it is in the same file.", redis="tls-key-file"
    )
    tls_ca: str = _option(
        "", PATH, "The CAs whose certificates clients may show, in PEM format.", redis="tls-ca-cert-file"
    )
    tls_auth_clients: str = _option(
        "auto",
        choice("auto", "yes", "no", "optional"),
        "Whether a client must show a certificate; auto asks for one if CAs are given.",
        redis="tls-auth-clients",
    )
    requirepass: Password = _option(
        Password(),
        PASSWORD,
        "The password that clients must give. Other users of the machine can see it among the processes: rather use "
        "the environment variable, or --password-file.",
        redis="requirepass",
        live=True,
    )
    password_file: str = _option("", PATH, "Read the password that clients must give from this file.")
    acl_file: str = _option(
        "",
        PATH,
        "Read users and what each may do from this file, a line a user as ACL LIST shows them; ACL SAVE writes it.",
        redis="aclfile",
    )
    acllog_max_len: int = _option(
        128, count(0, 1_000_000), "How many denials ACL LOG keeps.", redis="acllog-max-len", live=True
    )
    protected_mode: str = _option(
        "yes",
        choice("yes", "no"),
        "Do not listen beyond this machine without a password.",
        redis="protected-mode",
    )
    maxmemory: int = _option(
        0,
        size_of_at_least(0),
        "How much the data may take up; 0 for any amount. It counts keys, values and the tables they are in, and not "
        "the interpreter (some 25 MB) or what waits for clients.",
        redis="maxmemory",
        live=True,
    )
    maxmemory_policy: str = _option(
        "noeviction",
        choice(*POLICIES),
        "What goes when the data is larger: nothing, and commands that need more are refused; or the least recently "
        "used, the least frequently used or random keys, of all or only of those with a deadline; or the nearest "
        "deadlines.",
        redis="maxmemory-policy",
        live=True,
    )
    maxmemory_clients: int = _option(
        2 * 1024**3,
        size_of_at_least(0),
        "How much may wait in memory for all clients together: half-received commands, queued ones, replies, messages. "
        "Beyond it the client that holds most is closed. The default has room for two of the longest commands; 0 for "
        "any amount.",
        redis="maxmemory-clients",
        live=True,
    )
    databases: int = _option(16, count(1, 10_000), "Number of databases for SELECT.", redis="databases")
    maxclients: int = _option(
        10_000,
        count(1, 1_000_000),
        "Connections at a time; more are refused. An idle one takes some 30 KB of memory.",
        redis="maxclients",
        live=True,
    )
    accept_rate: int = _option(
        0,
        count(0, 1_000_000),
        "Connections to accept a second; those that come faster wait their turn. 0 for as many as come, since all "
        "clients of a service that restarts come at once, and rightly.",
        live=True,
    )
    timeout: int = _option(
        0,
        SECONDS,
        "Close a connection that sends nothing for this time; 0 never does, since clients keep idle connections in "
        "their pools, and they cost little. Subscribers and MONITOR are exempt.",
        redis="timeout",
        live=True,
    )
    log_level: str = _option(
        "info",
        choice("debug", "info", "warning", "error"),
        "What to log, on standard error or in a file.",
        redis="loglevel",
    )
    log_file: str = _option(
        "",
        PATH,
        "Log to this file instead of standard error. On SIGHUP it is opened anew, as logrotate wants it.",
        redis="logfile",
    )
    log_format: str = _option("console", choice("console", "json"), "How log lines look: for people, or for machines.")
    request_timeout: int = _option(
        60,
        SECONDS,
        "Close a connection whose command has not arrived whole after this time; 0 waits. Long enough for a slow line, "
        "short enough that half a command cannot hold memory for long.",
        live=True,
    )
    write_timeout: int = _option(
        60,
        SECONDS,
        "Close a connection that takes no reply bytes for this time; 0 waits. A client that is stopped in a debugger "
        "gets a minute; one that is gone holds its replies no longer.",
        live=True,
    )
    tcp_keepalive: int = _option(
        300,
        SECONDS,
        "Probe idle TCP connections after this time, to find those whose client is gone without a word; 0 does not.",
        redis="tcp-keepalive",
        live=True,
    )
    tcp_backlog: int = _option(511, count(1, 65_535), "Connections waiting to be accepted.", redis="tcp-backlog")
    pin_threads: str = _option(
        "auto",
        choice("auto", "yes", "no"),
        "Run all connection threads on one CPU. Faster under a global interpreter lock, which lets only one of them "
        "run anyway; auto does so where there is such a lock and the system allows it.",
    )
    max_arguments: int = _option(
        1024**2,
        count(64, 2**31 - 1),
        "The most strings in a command, with its name. The default is Redis'.",
        live=True,
    )
    max_bulk_length: int = _option(
        512 * 1024**2,
        SIZE,
        "The longest argument or value. The default is Redis'.",
        redis="proto-max-bulk-len",
        live=True,
    )
    max_command_length: int = _option(
        1024**3,
        SIZE,
        "The longest command, all arguments together; and the longest transaction, all its commands together. The "
        "default is Redis'.",
        redis="client-query-buffer-limit",
        live=True,
    )
    client_output_buffer_limit: OutputLimits = _option(
        OutputLimits(),
        OUTPUT_LIMITS,
        "How much may wait for a subscriber that reads slowly: a hard limit, and one for so many seconds.",
        redis="client-output-buffer-limit",
        live=True,
    )
    notify_keyspace_events: str = _option(
        "",
        EVENT_CLASSES,
        "Which changes to keys are published: K, E and letters of the classes of events, or A for nearly all; "
        "empty for none.",
        redis="notify-keyspace-events",
        live=True,
    )
    tracking_table_max_keys: int = _option(
        1_000_000,
        count(0, 2**63 - 1),
        "How many keys are remembered for clients that track what they have read; 0 for any number.",
        redis="tracking-table-max-keys",
        live=True,
    )
    slowlog_log_slower_than: int = _option(
        10_000,
        bounded("MICROSECONDS", -1, 2**63 - 1),
        "Keep commands that took longer for SLOWLOG; 0 keeps all, -1 none.",
        redis="slowlog-log-slower-than",
        live=True,
    )
    slowlog_max_len: int = _option(
        128, count(0, 1_000_000), "How many commands SLOWLOG keeps.", redis="slowlog-max-len", live=True
    )
    commandlog_request_larger_than: int = _option(
        1024**2,
        bounded("BYTES", -1, 2**63 - 1),
        "Keep commands whose words together are larger for COMMANDLOG; -1 none.",
        redis="commandlog-request-larger-than",
        live=True,
    )
    commandlog_reply_larger_than: int = _option(
        1024**2,
        bounded("BYTES", -1, 2**63 - 1),
        "Keep commands whose replies are larger for COMMANDLOG; -1 none.",
        redis="commandlog-reply-larger-than",
        live=True,
    )
    commandlog_large_request_max_len: int = _option(
        128,
        count(0, 1_000_000),
        "How many commands COMMANDLOG keeps as large requests.",
        redis="commandlog-large-request-max-len",
        live=True,
    )
    commandlog_large_reply_max_len: int = _option(
        128,
        count(0, 1_000_000),
        "How many commands COMMANDLOG keeps as large replies.",
        redis="commandlog-large-reply-max-len",
        live=True,
    )
    latency_monitor_threshold: int = _option(
        0,
        bounded("MILLISECONDS", 0, 2**31 - 1),
        "Record for LATENCY when a command takes so long or longer; 0 does not.",
        redis="latency-monitor-threshold",
        live=True,
    )
    once_max_outcomes: int = _option(
        100_000,
        count(0, 2**31 - 1),
        "How many outcomes KV.ONCE keeps at a time, of some 300 bytes each; more commands are refused. They are not "
        "evicted when memory is limited.",
        live=True,
    )
    cluster_mode: str = _option(
        "off",
        choice("off", "report", "emulated"),
        "Find out what of a program would break in a cluster: report notes such calls for KV.CLUSTER REPORT; emulated "
        "refuses them as a cluster does, and answers as a cluster of one node that has all slots, with one database.",
    )
    backend: ServerURL = _option(
        ServerURL(),
        SERVER_URL,
        "Be a gateway: have another server or a cluster run what is about data, as valkey+cluster://HOST:PORT,HOST:PORT"
        " (valkeys+cluster:// with TLS) or valkey://HOST:PORT. This server then keeps no data. "
        "A password in it can be seen among the processes: rather set the environment variable.",
    )
    backend_cache: int = _option(
        0,
        count(0, 2**31 - 1),
        "Of a gateway: of how many keys to keep values for GET. The backend tells of changes; other clients' are seen "
        "when that has arrived, those made through this gateway at once.",
    )
    data_dir: str = _option(
        "",
        PATH,
        "Keep the data in this directory, in files that Redis and Valkey load too. Without one it is in memory only.",
        redis="dir",
    )
    fsync: str = _option(
        "always",
        choice("always", "everysec", "no"),
        "When a change is safe on disk: before its reply, within about a second, or when the system likes. Only with a "
        "data directory.",
        redis="appendfsync",
        live=True,
    )
    auto_aof_rewrite_percentage: int = _option(
        100,
        bounded("PERCENT", 0, 2**31 - 1),
        "Rewrite the files when they have grown by so much since the last time; 0 does not.",
        redis="auto-aof-rewrite-percentage",
        live=True,
    )
    auto_aof_rewrite_min_size: int = _option(
        64 * 1024**2,
        size_of_at_least(0),
        "Do not rewrite smaller files by themselves.",
        redis="auto-aof-rewrite-min-size",
        live=True,
    )
    load: str = _option(
        "",
        PATH,
        "Python modules with commands of your own, by name or by path, separated by commas. It is code that runs in "
        "the server.",
    )
    clock_command: str = _option(
        "no",
        choice("no", "local", "yes"),
        "Who may use KV.CLOCK, which stops and moves the server's time, for tests.",
    )
    metrics_port: int | None = _option(
        None,
        PORT,
        "HTTP port of the live page, of /metrics for Prometheus, and of /healthz and /readyz; 0 takes a free one, off "
        "none. It needs the extra metrics: pip install 'kvserver[metrics]'.",
    )
    metrics_host: tuple[str, ...] = _option(
        ("127.0.0.1",),
        HOSTS,
        "Addresses of the HTTP port. What goes through it is not encrypted: rather than opening it to a network you do "
        "not trust, put a proxy that speaks TLS before it.",
    )
    web_hosts: tuple[str, ...] = _option(
        (),
        NAMES,
        "Names by which browsers and Prometheus may call the HTTP port, beside its addresses and localhost. Others are "
        "refused, so that no page of a stranger can give this machine a name of its own.",
        live=True,
    )
    web_writes: str = _option(
        "no",
        choice("no", "yes"),
        "Whether the live page may set and delete keys, as far as its user may. By itself it only reads.",
    )
    debug_command: str = _option(
        "no",
        choice("no", "local", "yes"),
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
