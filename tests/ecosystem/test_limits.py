"""limits: its fixed and sliding windows, each a script or two. Its moving window needs lists."""

from __future__ import annotations

import time

import pytest
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond, storage, strategies


@pytest.mark.parametrize(
    "strategy",
    [strategies.FixedWindowRateLimiter, strategies.SlidingWindowCounterRateLimiter],
    ids=["fixed", "sliding"],
)
def test_a_rate_limit(url: str, strategy: type[strategies.RateLimiter]) -> None:
    limiter = strategy(storage.storage_from_string(url))
    three = RateLimitItemPerMinute(3)
    assert [limiter.hit(three, "somebody") for _ in range(5)] == [True, True, True, False, False]
    assert limiter.hit(three, "somebody else")
    assert not limiter.test(three, "somebody")
    reset, remaining = limiter.get_window_stats(three, "somebody")
    assert remaining == 0
    assert time.time() < reset <= time.time() + 61
    limiter.clear(three, "somebody")
    assert limiter.hit(three, "somebody")


@pytest.mark.parametrize(
    "strategy",
    [strategies.FixedWindowRateLimiter, strategies.SlidingWindowCounterRateLimiter],
    ids=["fixed", "sliding"],
)
def test_a_window_passes(url: str, strategy: type[strategies.RateLimiter]) -> None:
    limiter = strategy(storage.storage_from_string(url))
    one = RateLimitItemPerSecond(1)
    started = time.monotonic()
    assert limiter.hit(one, "somebody")
    while not limiter.hit(one, "somebody"):  # each refusal is a round trip; the window ends by the server's clock
        assert time.monotonic() < started + 10


def test_everything_is_forgotten(url: str) -> None:
    store = storage.storage_from_string(url)
    limiter = strategies.FixedWindowRateLimiter(store)
    assert store.check()
    limiter.hit(RateLimitItemPerMinute(3), "a")
    limiter.hit(RateLimitItemPerMinute(3), "b")
    assert store.reset() == 2
