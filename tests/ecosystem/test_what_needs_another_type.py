"""Libraries built on lists, hashes, sets or sorted sets: each is told so by the first such command it sends."""

from __future__ import annotations

from collections.abc import Callable

import celery
import huey
import kombu
import pytest
import redis
import requests_cache
import rq
from celery.app.task import Context
from matrix import MATRIX, Row

import kvserver


def _broker(server: kvserver.Server) -> None:
    with kombu.Connection(f"{server.url}/0") as connection:
        connection.SimpleQueue("jobs").put({"hello": "world"})


def _chord(server: kvserver.Server) -> None:
    """What a worker does when it has finished one task of a chord."""
    app = celery.Celery("shop", broker="memory://", backend=f"{server.url}/0")

    @app.task(name="total")
    def total(*_: int) -> None:
        """Gets the results of the others."""

    app.backend.on_chord_part_return(Context(id="1", group="g", chord=total.s(), group_index=0), "SUCCESS", 1)


def _rq(server: kvserver.Server) -> None:
    with redis.Redis(port=server.port) as client:
        rq.Queue(connection=client).enqueue(print, "hello")


def _huey(server: kvserver.Server) -> None:
    huey.RedisHuey("jobs", url=f"{server.url}/0").task()(print)("hello")


def _requests_cache(server: kvserver.Server) -> None:
    with redis.Redis(port=server.port) as client:
        requests_cache.RedisCache(connection=client).redirects["a"] = "b"


_USES: dict[str, Callable[[kvserver.Server], None]] = {
    "Celery (kombu) as a broker": _broker,
    "Celery's chords": _chord,
    "RQ": _rq,
    "huey": _huey,
    "requests-cache": _requests_cache,
}


@pytest.mark.parametrize("row", [row for row in MATRIX if row.fails], ids=lambda row: row.name)
def test_the_first_command_that_is_refused(row: Row, server: kvserver.Server) -> None:
    refusal = "this server runs no Lua" if row.fails == "SCRIPT LOAD" else f"unknown command '{row.fails}'"
    with pytest.raises(Exception, match=refusal):
        _USES[row.name](server)
