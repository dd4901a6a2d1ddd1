"""Who may ask over HTTP, and from where: host names, the pages of others, user and password.

A browser sends what the pages of strangers tell it to send. So a name that is not this server's is refused (a
stranger's name may have been made to point here), and so is a request that another site caused.
"""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from kvserver.access.users import DEFAULT
from kvserver.config import Config
from kvserver.protocol.replies import Error
from kvserver.web.exchange import RefusalError, Request
from kvserver.web.visitor import Visitor

_ASK = {"WWW-Authenticate": 'Basic realm="kvserver", charset="UTF-8"'}
_OWN = ("same-origin", "none")
"""What browsers say of a request by the page itself, or by its user."""


def check_host(request: Request, config: Config) -> None:
    """Refuse a host name that is not known to be ours.

    Raises:
        RefusalError: it is not.
    """
    if not _is_ours(request.headers.get("host", ""), config):
        raise RefusalError(
            HTTPStatus.MISDIRECTED_REQUEST,
            "host",
            "This server does not go by that name. If it should, give it the name with --web-hosts.",
        )


def _is_ours(host: str, config: Config) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost") or name in (*config.metrics_host, *config.web_hosts):
        return bool(name)
    try:
        ip_address(name)  # an address is no name that a stranger could have made up
    except ValueError:
        return False
    return True


def check_origin(request: Request) -> None:
    """Refuse what the page of another site has caused, but for a link to the page itself.

    Raises:
        RefusalError: it has.
    """
    headers = request.headers
    is_link = request.path == "/" and request.method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site", "none") not in _OWN and not is_link:
        raise _cross_site()
    if request.method != "POST":
        return
    origin = headers.get("origin")
    if origin is not None and _host_of(origin) != headers.get("host", "").lower():
        raise _cross_site()
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":  # a form cannot send this
        raise RefusalError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media_type", "Send application/json.")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as a bracket without its other half
        return None


def _cross_site() -> RefusalError:
    """A new one each time: one that is raised again keeps every frame it has been through."""
    return RefusalError(HTTPStatus.FORBIDDEN, "cross_site", "Another site's page may not ask for this.")


def authenticate(request: Request, visitor: Visitor) -> None:
    """Make the visitor the user whose name and password the request has; without a password, anybody.

    It is AUTH that decides, so failures are counted and are in ACL LOG.

    Raises:
        RefusalError: nobody without a password is let in, or these are not right.
    """
    given = request.headers.get("authorization")
    if given is None:
        if not visitor.session.authenticated:
            raise RefusalError(HTTPStatus.UNAUTHORIZED, "no_password", "A password is needed.", _ASK)
        return
    scheme, _, encoded = given.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(scheme)
        name, separator, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        if not separator:
            raise ValueError(name)
        visitor.run("AUTH", name or DEFAULT, password)
    except (ValueError, binascii.Error, Error):
        raise RefusalError(HTTPStatus.UNAUTHORIZED, "password", "Wrong user name or password.", _ASK) from None
