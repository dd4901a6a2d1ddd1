"""What the tests of threads share: a race that begins at one moment, each runner with its own connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import kvclient

Result = TypeVar("Result")
Runner = Callable[[kvclient.Client, int], Result]

PATIENCE = 60
"""Seconds until a test gives up. Generous: other tests run beside these."""


def race(url: str, *runners: Runner[Result]) -> list[Result]:
    """Run each function in a thread, with a client and its number; what they return, in their order.

    All are connected, and then start at once.
    """
    barrier = threading.Barrier(len(runners))

    def run(number: int) -> Result:
        with kvclient.connect(url, timeout=PATIENCE) as client:
            client.ping()
            barrier.wait(PATIENCE)
            return runners[number](client, number)

    with ThreadPoolExecutor(len(runners)) as pool:
        return list(pool.map(run, range(len(runners)), timeout=PATIENCE))


def together(url: str, count: int, runner: Runner[Result]) -> list[Result]:
    """The same function ``count`` times at once."""
    return race(url, *[runner] * count)


def flatten(parts: Sequence[Sequence[Result]]) -> list[Result]:
    return [item for part in parts for item in part]
