"""One HTTP request and its response, as bytes: sans-I/O, around h11. One exchange a connection, then it is closed.

No socket, no clock, no path is known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import h11

_HEAD_LIMIT = 16 * 1024
"""Bytes of the request line and all headers. A browser sends some 2 KB."""
BODY_LIMIT = 2 * 1024**2
"""Bytes of a request's body."""
_ONCE = {"host", "origin", "authorization", "content-type", "content-length", "sec-fetch-site"}
"""Headers that decide about something, and so must not say two things."""
_ALWAYS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request. Header names are in lower case; ``path`` is decoded. The body comes last, and only if it is wanted."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What is sent back: a body, or a stream of pieces without an end known before."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None


class RefusalError(Exception):
    """A request that is not answered with what it asks for: the status, and a line for whoever reads it.

    ``reason`` is a word for the log and the counter; never anything that the client sent.
    """

    def __init__(self, status: HTTPStatus, reason: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.reason, self.text, self.headers = status, reason, text, headers or {}

    def response(self) -> Response:
        """As it is sent."""
        return Response(self.status, f"{self.text}\n".encode(), headers=self.headers)


def bad_request(text: str) -> RefusalError:
    """What was sent is not HTTP, or not what is asked for here."""
    return RefusalError(HTTPStatus.BAD_REQUEST, "bad_request", text)


_TOO_SHORT = "The request ends too early."
_TOO_LARGE = "The request's body is too large."


class Exchange:
    """One request in, one response out."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
        self._head: h11.Request | None = None
        self._body = bytearray()  # grows with what arrives, not with what is announced
        self.is_untouched = True  # nothing has come yet

    def feed_head(self, data: bytes) -> Request | None:
        """Take in what has arrived, empty at its end; the request without its body, once its head is whole.

        Raises:
            RefusalError: it is not HTTP, is larger than anything that is asked for here, or ends too early.
        """
        if data and self.is_untouched:
            self.is_untouched = False
            # RESP and TLS have no empty line for which h11 waits: tell them at once.
            if not data[:1].isalpha():
                raise bad_request("This port speaks HTTP.")
        match self._next(data):
            case h11.Request() as head:
                self._head = head
                return _request(head)
            case h11.ConnectionClosed():
                raise bad_request(_TOO_SHORT)
        return None

    def feed_body(self, data: bytes | None = None) -> bytes | None:
        """Take in more, or nothing beside what came with the head; the body, once it is whole.

        Raises:
            RefusalError: it is larger than anything that is asked for here, or ends too early.
        """
        event = self._next(data)
        while isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > BODY_LIMIT:
                raise RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "large_body", _TOO_LARGE)
            event = self._next(None)
        if isinstance(event, h11.EndOfMessage):
            return bytes(self._body)
        if isinstance(event, h11.ConnectionClosed):
            raise bad_request(_TOO_SHORT)
        return None

    def _next(self, data: bytes | None) -> object:
        try:
            if data is not None:
                self._h11.receive_data(data)
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
                raise RefusalError(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "large_head", "The request's head is too large."
                ) from None
            raise bad_request("This is not a request in HTTP/1.1.") from None

    # The response

    def whole(self, response: Response) -> bytes:
        """A response with its body."""
        headers = {"Content-Length": str(len(response.body))}
        data = self._begin(response, headers)
        if self._head is None or self._head.method != b"HEAD":
            data += self.piece(response.body)
        return data + self.end()

    def begin_stream(self, response: Response) -> bytes:
        """The head of a response whose pieces follow."""
        return self._begin(response, {})

    def _begin(self, response: Response, more: Mapping[str, str]) -> bytes:
        headers = {**_ALWAYS, "Content-Type": response.content_type, **response.headers, **more}
        if self._head is None:  # what came was no request that h11 would answer
            lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            return "\r\n".join([*lines, "", ""]).encode("latin-1")
        return self._sent(
            h11.Response(
                status_code=response.status.value, reason=response.status.phrase.encode(), headers=list(headers.items())
            )
        )

    def piece(self, data: bytes) -> bytes:
        """A part of the body."""
        return data if self._head is None else self._sent(h11.Data(data=data))

    def end(self) -> bytes:
        """What follows the last piece."""
        return b"" if self._head is None else self._sent(h11.EndOfMessage())

    def _sent(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""


def _request(head: h11.Request) -> Request:
    target = head.target.decode("latin-1")
    if not target.startswith("/"):
        raise bad_request("The request names no path.")
    headers: dict[str, str] = {}
    for raw, value in head.headers:
        name = raw.decode("latin-1")
        if name in headers and name in _ONCE:
            raise bad_request("A header that counts is there twice.")
        headers[name] = value.decode("latin-1")
    if head.method != b"POST" and ("transfer-encoding" in headers or headers.get("content-length", "0") != "0"):
        raise bad_request("Only POST has a body here.")
    path, _, query = target.partition("?")
    try:
        fields = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=16))
    except ValueError:
        raise bad_request("The query cannot be read.") from None
    return Request(head.method.decode("latin-1"), unquote(path), fields, headers)
