"""The live page: one file, with its style and script inside, and a policy that lets nothing else run.

The policy names the two by their hashes, which are taken from the file as it is.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from kvserver.web.exchange import Request, Response
from kvserver.web.visitor import Visitor


class Page:
    """Answers ``/``: the same for everybody; what it shows, it asks for."""

    def __init__(self) -> None:
        text = files("kvserver.web").joinpath("page.html").read_text(encoding="utf-8")
        policy = "; ".join(
            (
                "default-src 'none'",
                f"script-src {_hash_of('script', text)}",
                f"style-src {_hash_of('style', text)}",
                "connect-src 'self'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
                "require-trusted-types-for 'script'",
            )
        )
        self._response = Response(
            body=text.encode(), content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": policy}
        )

    def answer(self, _request: Request, _visitor: Visitor) -> Response:
        """The page."""
        return self._response


def _hash_of(element: str, page: str) -> str:
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"
