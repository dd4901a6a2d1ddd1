"""Celery keeping its results here, its broker in memory. Chords, and a broker here, need other types."""

from __future__ import annotations

from collections.abc import Iterator

import celery
import pytest
from celery.contrib.testing.worker import start_worker

import kvserver


@pytest.fixture
def app(server: kvserver.Server) -> Iterator[celery.Celery]:
    made = celery.Celery("shop", broker="memory://", backend=f"{server.url}/1")
    made.conf.update(result_extended=True, result_expires=60, broker_connection_retry_on_startup=False)

    @made.task(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    @made.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    with start_worker(made, perform_ping_check=False, pool="solo", loglevel="CRITICAL", shutdown_timeout=30):
        yield made


def test_results(app: celery.Celery) -> None:
    result = app.tasks["add"].delay(1, 2)
    assert result.get(timeout=20) == 3
    assert result.state == "SUCCESS"
    assert result.name == "add"
    again = celery.result.AsyncResult(result.id, app=app)
    assert again.result == 3
    result.forget()
    assert celery.result.AsyncResult(result.id, app=app).state == "PENDING"


def test_errors(app: celery.Celery) -> None:
    result = app.tasks["fail"].delay()
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=20)
    assert result.state == "FAILURE"


def test_groups_and_chains(app: celery.Celery) -> None:
    add = app.tasks["add"]
    assert celery.group(add.s(n, n) for n in range(10))().get(timeout=20) == [n * 2 for n in range(10)]
    assert celery.chain(add.s(1, 2), add.s(10))().get(timeout=20) == 13
    saved = celery.group(add.s(n, 1) for n in range(3))()
    saved.save()
    assert celery.result.GroupResult.restore(saved.id, app=app).get(timeout=20) == [1, 2, 3]
