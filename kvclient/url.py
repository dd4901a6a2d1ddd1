"""Where a server is and how to talk to it: a URL and keyword options become one frozen Options.

Not here: connecting. Every option is one row of the table in this file, whether it is written in the URL's
query or given to connect() by keyword.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from kvclient.errors import BadURLError

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_URL: Final = "redis://127.0.0.1:6379/0"
DEFAULT_PORT: Final = 6379

Setting: TypeAlias = str | int | float | bool | tuple[tuple[str, int], ...] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that is needed to reach a server. Its repr() never shows the password.

    Attributes:
        host, port: the server's TCP address; unused if `path` is set.
        nodes: for a cluster, some of its nodes, as host and port; otherwise empty.
        path: the file name of the server's Unix socket, or None.
        username, password: credentials, or None.
        db: the number of the database to select.
        timeout: seconds that one call may take, waiting and connecting included.
        max_connections: the most connections one client opens.
        max_idle: seconds after which a connection that nobody uses is closed.
        retries: how often a call that failed is made again, if that cannot apply it twice.
        name: what CLIENT LIST shows for the connections, or None.
        protocol: the RESP version to ask for; an old server is spoken to in 2.
        tls: True to encrypt.
        tls_ca, tls_cert, tls_key: PEM files: whom to trust, and who we are.
        tls_verify: False accepts any server certificate.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    nodes: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    username: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    db: int = 0
    timeout: float = 5.0
    max_connections: int = 32
    max_idle: float = 300.0
    retries: int = 3
    name: str | None = None
    protocol: Literal[2, 3] = 3
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_verify: bool = True

    def __post_init__(self) -> None:
        _check(0 <= self.port <= 65535, f"port {self.port} is outside 0 to 65535")
        _check(self.db >= 0, f"db {self.db} is negative")
        _check(0 < self.timeout < 1e8, f"timeout {self.timeout} is not a positive number of seconds")
        _check(self.max_connections >= 1, f"max_connections {self.max_connections} is less than 1")
        _check(0 < self.max_idle < 1e8, f"max_idle {self.max_idle} is not a positive number of seconds")
        _check(self.retries >= 0, f"retries {self.retries} is negative")
        _check(self.protocol in {2, 3}, f"protocol {self.protocol} is neither 2 nor 3")
        name_ok = self.name is None or re.fullmatch(r"[!-~]+", self.name)
        _check(bool(name_ok), f"name {self.name!r} has spaces or unprintable characters")
        _check(self.password is not None or self.username is None, "a username needs a password beside it")

    @property
    def address(self) -> str:
        """The address as people write it, for messages."""
        if self.path is not None:
            return self.path
        if self.nodes:
            return ",".join(self.at(host, port).address for host, port in self.nodes)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def at(self, host: str, port: int) -> Options:
        """The same for one server alone, at this address."""
        return dataclasses.replace(self, host=host, port=port, nodes=())


def _check(fine: bool, problem: str) -> None:
    if not fine:
        raise BadURLError(f"bad option: {problem}")


def _integer(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("a whole number")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError("a number of seconds")
    return float(text)


def _flag(text: str) -> bool:
    if text.lower() not in {"yes", "no", "true", "false", "1", "0", "on", "off"}:
        raise ValueError("yes or no")
    return text.lower() in {"yes", "true", "1", "on"}


_QUERY: Final[dict[str, Callable[[str], Setting]]] = {
    "username": str,
    "password": str,
    "db": _integer,
    "timeout": _seconds,
    "max_connections": _integer,
    "max_idle": _seconds,
    "retries": _integer,
    "name": str,
    "protocol": _integer,
    "tls_ca": str,
    "tls_cert": str,
    "tls_key": str,
    "tls_verify": _flag,
}
_TCP: Final = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
_CLUSTER: Final = {f"{name}+cluster": tls for name, tls in _TCP.items()}
_UNIX: Final = frozenset({"unix", "redis+unix", "valkey+unix"})


def default_url() -> str:
    """Where a server is if nothing is said: the environment variable KV_URL, or this machine."""
    return os.environ.get("KV_URL") or DEFAULT_URL


def parse_url(url: str, **overrides: Setting) -> Options:
    """The Options a URL stands for; `overrides` that are not None win over it.

    Raises:
        BadURLError: with one line that says what is wrong and, where it helps, what would be right.
    """
    if not re.fullmatch(r"[!-~\u00a0-\ud7ff\ue000-\U0010ffff]*", url):
        raise BadURLError("bad URL: it has spaces or control characters; write them as %20 and the like")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadURLError(f"bad URL: {error}") from None
    if parts.fragment or url.endswith("#"):
        raise BadURLError("bad URL: it has a '#'; write %23 if a user, password or path has one")
    scheme = parts.scheme.lower()
    if scheme in _UNIX:
        settings = _unix(parts.netloc, parts.path)
    elif scheme in _CLUSTER:
        settings = _cluster(parts.netloc, parts.path) | {"tls": _CLUSTER[scheme]}
    elif scheme in _TCP:
        settings = _tcp(parts.netloc, parts.path) | {"tls": _TCP[scheme]}
    else:
        known = ", ".join(f"{name}://" for name in sorted({*_TCP, *_CLUSTER, *_UNIX}))
        raise BadURLError(f"bad URL: it begins with none of {known}")
    settings |= _query(parts.query)
    settings |= {key: value for key, value in overrides.items() if value is not None}
    return Options(**settings)  # type: ignore[arg-type]  # each value was cast by its row of the table


def _tcp(netloc: str, path: str) -> dict[str, Setting]:
    """Settings of `user:password@host:port/db`."""
    user, _, place = netloc.rpartition("@")
    host, port = _place(place)
    settings: dict[str, Setting] = {"port": port, **_credentials(user), **_database(path)}
    if host:
        settings["host"] = host
    return settings


def _cluster(netloc: str, path: str) -> dict[str, Setting]:
    """Settings of `user:password@host:port,host:port/db`."""
    user, _, places = netloc.rpartition("@")
    nodes = tuple((host or "127.0.0.1", port) for host, port in map(_place, places.split(",")))
    for _, port in nodes:
        _check(port <= 65535, f"port {port} is outside 0 to 65535")
    return {"nodes": nodes, "host": nodes[0][0], "port": nodes[0][1], **_credentials(user), **_database(path)}


def _place(text: str) -> tuple[str, int]:
    """Host, perhaps empty, and port."""
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", text)
    if not found:
        raise BadURLError(f"bad URL: {text!r} is not HOST, HOST:PORT or [IPV6]:PORT")
    return _decode(found[1].strip("[]")), int(found[2] or DEFAULT_PORT)


def _database(path: str) -> dict[str, Setting]:
    db = path.removeprefix("/")
    return {"db": _cast("db", _decode(db))} if db else {}


def _unix(netloc: str, path: str) -> dict[str, Setting]:
    """Settings of `user:password@/path`."""
    user, _, rest = netloc.rpartition("@")
    if rest or path in {"", "/"}:
        raise BadURLError("bad URL: a Unix socket is written unix:///absolute/path, with three slashes")
    return {"path": _decode(path), **_credentials(user)}


def _credentials(text: str) -> dict[str, Setting]:
    """Settings of `user:password`, `:password` or nothing."""
    if not text:
        return {}
    user, colon, password = text.partition(":")
    if not colon:
        raise BadURLError("bad URL: a user needs a password, USER:PASSWORD@; a password alone is :PASSWORD@")
    return {"username": _decode(user) or None, "password": _decode(password)}


def _query(query: str) -> dict[str, Setting]:
    """Settings of `name=value&name=value`."""
    settings: dict[str, Setting] = {}
    for item in filter(None, query.split("&")):
        name, equals, text = item.partition("=")
        if not equals or name not in _QUERY:
            raise BadURLError(f"bad URL: unknown option {name!r}; known are {', '.join(_QUERY)}")
        settings[name] = _cast(name, _decode(text))
    return settings


def _cast(name: str, text: str) -> Setting:
    try:
        return _QUERY[name](text)
    except ValueError as error:
        raise BadURLError(f"bad URL: {name} is {text!r}, which is not {error}") from None


def _decode(text: str) -> str:
    """Percent-decode strictly: unlike urllib's, a stray % is an error and not a guess."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise BadURLError("bad URL: a '%' is not followed by two hexadecimal digits; a percent sign is %25")
    raw = re.sub(rb"%(..)", lambda found: bytes.fromhex(found[1].decode()), text.encode())
    if b"\0" in raw:
        raise BadURLError("bad URL: it has a zero byte, %00")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadURLError("bad URL: its %-escapes are not UTF-8") from None
