"""Listening sockets: create, bind, listen. What goes wrong there is said in one line that tells what would do.

``server.py`` accepts from them.
"""

from __future__ import annotations

import errno
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from kvserver.config import ConfigError


class AddressInUseError(ConfigError):
    """Another program listens there."""


def tcp_listener(host: str, port: int, backlog: int, *, required: bool) -> socket.socket | None:
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
        raise ConfigError(f"--host {host}: is not an address of this machine: {reason}.") from None
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
        raise kind_of_error(_why_not(host, port, error)) from None
    return listener


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use, perhaps by a Redis server. "
            "Choose another with --port, or a free one with --port 0."
        )
    if error.errno == errno.EACCES:
        return f"port {port} on {host}: permission denied. Ports below 1024 need privileges; choose a higher --port."
    return f"cannot listen on {host} port {port}: {error.strerror}. Check --host and --port."


def unix_listener(path: str, backlog: int) -> socket.socket:
    """A socket that listens at a path of the file system."""
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
