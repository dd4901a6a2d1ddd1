"""What systemd and its services tell each other: readiness, over a datagram socket, and sockets it listens on for us.

See sd_notify(3) and sd_listen_fds(3). Without systemd all of this does nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from kvserver.config import ConfigError

_FIRST = 3
"""The first descriptor that is passed on."""


def notify(*lines: str) -> None:
    """Tell the service manager, if there is one that wants to know, for example ``READY=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):  # of the abstract namespace
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto("\n".join(lines).encode(), address)


def is_told() -> bool:
    """Whether there is a service manager that wants to know."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


class Loading:
    """Tells the service manager how far loading is, and so that it need not give up waiting. At most once a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        """So many bytes of so many have been loaded."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1
            notify("EXTEND_TIMEOUT_USEC=60000000", f"STATUS=Loading, {100 * done // max(1, total)} %")


def inherited_sockets() -> list[tuple[str, socket.socket]]:
    """The sockets that were passed to this process, with the names their units give them. To be asked for once.

    Raises:
        ConfigError: one of the descriptors is no socket.
    """
    ours = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    count, names = os.environ.pop("LISTEN_FDS", "0"), os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if not ours or not count.isdigit():
        return []
    named = [names[number] if number < len(names) else "" for number in range(int(count))]
    sockets = []
    for number, name in enumerate(named):
        try:
            os.set_inheritable(_FIRST + number, False)
            sockets.append((name, socket.socket(fileno=_FIRST + number)))
        except OSError as error:
            raise ConfigError(
                f"LISTEN_FDS announces {count} sockets, but descriptor {_FIRST + number} is none ({error.strerror}); "
                "what starts this server passes them on, as a .socket unit of systemd does."
            ) from None
    return sockets
