"""The HTTP port: /metrics, /healthz and /readyz, and a live page with a key browser.

HTTP is not what this server is about, so its framing is h11's and the exposition format prometheus-client's; both come
with the extra ``metrics``, and nothing outside this room imports them. What can go wrong here must not disturb those
who speak RESP: a port, threads and limits of its own, and every wait has an end.

``server.py`` has the sockets and threads, ``exchange.py`` one request and its response as bytes, ``guard.py`` says who
may ask, ``visitor.py`` runs commands as that user, ``site.py`` knows the paths; behind these are ``metrics.py``,
``sampler.py`` and ``live.py``, ``browser.py``, and ``page.html`` with its ``page.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvserver.config import ConfigError

if TYPE_CHECKING:
    from kvserver.listeners import Listener
    from kvserver.state import State
    from kvserver.web.server import WebServer


def web_server(state: State, listeners: list[Listener]) -> WebServer:
    """The HTTP port, which listens: on sockets that another process has made, or where the settings say.

    Raises:
        ConfigError: what it needs is not installed, or the port cannot be had.
    """
    try:
        from kvserver.web.server import WebServer  # here, since few need it
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        raise ConfigError(
            f"--metrics-port: the package {package} is not installed; pip install 'kvserver[metrics]' does that."
        ) from None
    web = WebServer(state)
    web.listen(listeners)
    return web
