"""Listening sockets: create, bind, listen. What goes wrong there is said in one line that tells what would do.

``server.py`` accepts from them.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from kvserver.config import Config, ConfigError

_HTTP_BACKLOG = 64
_PORT_TRIES = 20
"""How often to look for a port that is free on every address."""


class AddressInUseError(ConfigError):
    """Another program listens there."""


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """A listening socket, and whether who connects there speaks TLS."""

    sock: socket.socket
    tls: bool = False
    inherited: bool = False  # another process made it, and its Unix socket's file is that one's

    @property
    def kind(self) -> str:
        """``tcp``, ``tls`` or ``unix``, as INFO tells it."""
        if self.sock.family == getattr(socket, "AF_UNIX", None):
            return "unix"
        return "tls" if self.tls else "tcp"

    @property
    def port(self) -> int:
        """The TCP port; 0 for a Unix socket."""
        return 0 if self.kind == "unix" else int(self.sock.getsockname()[1])

    def close(self) -> None:
        """Close it, and remove a Unix socket's file."""
        if self.kind == "unix" and not self.inherited:
            with contextlib.suppress(OSError):
                Path(self.sock.getsockname()).unlink()
        self.sock.close()


HTTP_NAMES = ("metrics", "http")
"""Names that an inherited socket for HTTP may have."""


def inherited(sockets: Iterable[tuple[str, socket.socket]]) -> tuple[list[Listener], list[Listener]]:
    """Sockets that another process listens on for us: those for RESP, and those for HTTP.

    Args:
        sockets: each with a name: ``tls`` for TLS, ``metrics`` or ``http`` for HTTP, any other for RESP.

    Raises:
        ConfigError: one of them does not listen for connections.
    """
    resp: list[Listener] = []
    http: list[Listener] = []
    for name, sock in sockets:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ConfigError(
                f"the socket {name!r} that was passed on does not listen: give ListenStream= in its unit."
            )
        sock.setblocking(False)
        (http if name in HTTP_NAMES else resp).append(Listener(sock, name == "tls", inherited=True))
    return resp, http


def listen(config: Config) -> list[Listener]:
    """Listen everywhere the settings say.

    Raises:
        ConfigError: an address cannot be listened on, or there is none. Nothing is left open then.
    """
    with contextlib.ExitStack() as undo:
        listeners: list[Listener] = []
        for port, tls in ((config.port, False), (config.tls_port, True)):
            if port is not None:
                listeners += [Listener(sock, tls) for sock in _on_one_port(config, port, tls, undo)]
        if config.unix_socket:
            listeners.append(Listener(_unix_listener(config.unix_socket, config.tcp_backlog)))
        if not listeners:
            raise ConfigError("--port off: then there is nothing to listen on; give --tls-port or --unix-socket.")
        undo.pop_all()
    return listeners


def listen_for_http(config: Config) -> list[Listener]:
    """Listen on the HTTP port of each of its addresses.

    Raises:
        ConfigError: an address cannot be listened on. Nothing is left open then.
    """
    port = config.metrics_port or 0
    with contextlib.ExitStack() as undo:
        listeners: list[Listener] = []
        for host in config.metrics_host:
            sock = _tcp_listener(host, port, _HTTP_BACKLOG, required=True, flag="--metrics-port")
            if sock is not None:
                undo.callback(sock.close)
                port = sock.getsockname()[1]
                listeners.append(Listener(sock))
        undo.pop_all()
    return listeners


def _on_one_port(config: Config, port: int, tls: bool, undo: contextlib.ExitStack) -> list[socket.socket]:
    """Listen on one port of each address; a free one, if it is 0, is chosen once for all of them."""
    tries = 1 if port else _PORT_TRIES
    while True:
        tries -= 1
        with contextlib.ExitStack() as attempt:
            try:
                socks = _on_each_address(config, port, tls, attempt)
            except AddressInUseError:  # the port that was free on the first address is taken on the second
                if not tries:
                    raise
                continue
            undo.push(attempt.pop_all())
            return socks


def _on_each_address(config: Config, port: int, tls: bool, undo: contextlib.ExitStack) -> list[socket.socket]:
    socks: list[socket.socket] = []
    for host in config.host:
        # Not every machine has IPv6, so of the default addresses the second may be missing.
        required = config.host != Config().host or host == config.host[0]
        sock = _tcp_listener(host, port, config.tcp_backlog, required=required, flag="--tls-port" if tls else "--port")
        if sock is not None:
            undo.callback(sock.close)
            socks.append(sock)
            port = sock.getsockname()[1]
    return socks


def _tcp_listener(host: str, port: int, backlog: int, *, required: bool, flag: str) -> socket.socket | None:
    """A listening socket; None if the address does not exist here and is not ``required``."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        if not required:
            return None
        reason = getattr(error, "strerror", None) or "it is not a host name"
        raise ConfigError(f"{_host_flag(flag)} {host}: is not an address of this machine: {reason}.") from None
    try:
        if sys.platform != "win32":  # there it would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if not required and error.errno == errno.EADDRNOTAVAIL:
            return None
        kind_of_error = AddressInUseError if error.errno == errno.EADDRINUSE else ConfigError
        raise kind_of_error(_why_not(host, port, error, flag)) from None
    return listener


def _why_not(host: str, port: int, error: OSError, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use, perhaps by a Redis server. "
            f"Choose another with {flag}, or a free one with {flag} 0."
        )
    if error.errno == errno.EACCES:
        return f"port {port} on {host}: permission denied. Ports below 1024 need privileges; choose a higher {flag}."
    return f"cannot listen on {host} port {port}: {error.strerror}. Check {_host_flag(flag)} and {flag}."


def _host_flag(port_flag: str) -> str:
    return port_flag.replace("-tls", "").replace("port", "host")


def _unix_listener(path: str, backlog: int) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("--unix-socket: this system has no Unix sockets for Python.")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(path)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = "another server listens there" if error.errno == errno.EADDRINUSE else error.strerror or error
        raise ConfigError(f"--unix-socket {path}: {reason}.") from None
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket file of a server that was killed; one that answers stays, and so does any other file."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a server whose backlog is full is alive
        try:
            probe.connect(path)
        except BlockingIOError:
            return
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)


def is_local(address: Any) -> bool:
    """Whether a socket address is only of this machine."""
    return not isinstance(address, tuple) or ip_address(address[0].partition("%")[0]).is_loopback


def show(address: Any) -> str:
    """A socket address as ``host:port``, or as it is for a Unix socket's path."""
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return address if isinstance(address, str) else ""


def check_exposure(flag: str, listeners: Iterable[Listener]) -> None:
    """Refuse addresses that others than this machine's programs can reach. ``flag`` is the setting that named them.

    Raises:
        ConfigError: there is such an address.
    """
    for listener in listeners:
        address = listener.sock.getsockname()
        if not is_local(address):
            raise ConfigError(
                f"{flag} {address[0]}: anybody who reaches this machine could read and change the data. Set a "
                "password, best with --password-file or KVSERVER_REQUIREPASS; or say --protected-mode no, if all "
                "who can reach it may."
            )


def leads_to(host: str, port: int, listeners: Iterable[Listener]) -> bool:
    """Whether who connects to a host and port from here reaches one of the listeners."""
    same_port = [listener for listener in listeners if listener.kind != "unix" and listener.port == port]
    if not same_port:  # and no name has to be looked up, which may take a while
        return False
    try:
        found = {str(address[4][0]) for address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError:  # whoever connects will find out
        return False
    for listener in same_port:
        own = ip_address(listener.sock.getsockname()[0].partition("%")[0])
        if str(own) in found or (own.is_unspecified and any(ip_address(each).is_loopback for each in found)):
            return True
    return False
