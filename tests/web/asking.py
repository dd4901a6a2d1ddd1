"""Requests to the HTTP port of a server, as a browser, a script or nobody decent would send them."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import kvserver

PATIENCE = 30


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Web:
    """The HTTP port of a server."""

    def __init__(self, server: kvserver.Server) -> None:
        self.server = server
        self.port = server.metrics_port
        self.state = server._state

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """A request; ``user="name:password"`` gives a password. Header names with ``_`` for ``-``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if "user" in sent:
            sent["Authorization"] = "Basic " + base64.b64encode(sent.pop("user").encode()).decode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, body, sent)
            with connection.getresponse() as response:
                return Answer(response.status, dict(response.getheaders()), response.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, content: Any, **headers: str) -> Answer:
        return self.ask("POST", path, json.dumps(content).encode(), **{"Content_Type": "application/json"} | headers)

    def key(self, name: bytes, **headers: str) -> Answer:
        return self.get(f"/api/key?key={encode(name)}", **headers)

    def change(
        self, action: str, name: bytes, value: bytes = b"", ttl: int = 0, was: bytes | None = None, **headers: str
    ) -> Answer:
        content = {"db": "0", "action": action, "key": encode(name), "value": encode(value), "ttl": ttl}
        if was is not None:
            content["was"] = encode(was)
        return self.post("/api/key", content, **headers)

    def raw(self, data: bytes) -> bytes:
        """All that comes back for some bytes."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as sock:
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    @contextmanager
    def events(self, **headers: str) -> Iterator[Iterator[tuple[str, Any]]]:
        """The events of the live stream: name and content."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/api/live", headers=headers)
            with connection.getresponse() as response:
                assert response.status == 200, response.read()
                yield _events(response)


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    name = ""
    while line := response.readline():
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text)
