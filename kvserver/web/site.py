"""The paths of the HTTP port, and the order in which a request is looked at before one of them answers it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from kvserver.protocol.replies import Error
from kvserver.web import browser, live
from kvserver.web.exchange import RefusalError, Request, Response
from kvserver.web.guard import authenticate, check_host, check_origin
from kvserver.web.metrics import Metrics
from kvserver.web.page import Page
from kvserver.web.sampler import Sampler
from kvserver.web.visitor import Visitor

if TYPE_CHECKING:
    from kvserver.state import State

_Answer = Callable[[Request, Visitor], Response]
_NO_PERMISSION = ("NOPERM", "NOAUTH")


class Site:
    """Answers requests. Any thread."""

    def __init__(self, state: State, sampler: Sampler) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()  # guarded by _lock
        metrics, page = Metrics(state, sampler.delays, self._refused), Page()
        self._paths: dict[str, dict[str, _Answer]] = {
            "/": {"GET": page.answer},
            "/metrics": {"GET": metrics.answer},
            "/api/live": {"GET": lambda _, visitor: live.live(visitor, sampler)},
            "/api/keys": {"GET": browser.keys},
            "/api/key": {"GET": browser.key, "POST": browser.change},
            "/api/hotkeys": {"POST": browser.count_hot_keys},
        }
        self._probes: dict[str, Callable[[], Response]] = {"/healthz": _healthy, "/readyz": self._ready}

    def is_probe(self, request: Request) -> bool:
        """Whether it asks how the server is: what tells nothing that need be kept from anybody, and costs nothing."""
        return request.path in self._probes and _method(request) == "GET"

    def admit(self, request: Request, visitor: Visitor) -> Callable[[bytes], Response]:
        """What makes the response, given the body: decided by the head alone, so that nobody's body is read before.

        What it shows is as safe on disk as a reply needs. It raises RefusalError, too.

        Raises:
            RefusalError: the request is refused.
        """
        if self.is_probe(request):
            return lambda _: self._probes[request.path]()
        check_host(request, self._state.config)
        check_origin(request)
        answers = self._paths.get(request.path)
        if answers is None:
            raise RefusalError(HTTPStatus.NOT_FOUND, "not_found", "There is nothing here.")
        answer = answers.get(_method(request))
        if answer is None:
            raise RefusalError(
                HTTPStatus.METHOD_NOT_ALLOWED, "method", "Not by this method.", {"Allow": ", ".join(answers)}
            )
        authenticate(request, visitor)
        return lambda body: _answered(answer, replace(request, body=body), visitor)

    def count_refusal(self, reason: str) -> None:
        """A request, or a connection, was refused."""
        with self._lock:
            self._refused[reason] += 1

    def _ready(self) -> Response:
        why = live.trouble(self._state)
        if why is None:
            return Response(body=b"ready\n")
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}\n".encode())


def _method(request: Request) -> str:
    return "GET" if request.method == "HEAD" else request.method


def _answered(answer: _Answer, request: Request, visitor: Visitor) -> Response:
    try:
        response = answer(request, visitor)
    except Error as error:
        raise _refusal(error) from None
    visitor.settle()
    return response


def _healthy() -> Response:
    return Response(body=b"ok\n")


def _refusal(error: Error) -> RefusalError:
    """What a command's error is over HTTP."""
    if error.code in _NO_PERMISSION:
        return RefusalError(HTTPStatus.FORBIDDEN, "no_permission", error.text)
    if error.code in ("LOADING", "MISCONF", "OOM"):
        return RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", error.text)
    return RefusalError(HTTPStatus.BAD_REQUEST, "command", error.text)
